//! The node cache of this node: whether it runs, can be asked, and has room.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cache::control::SOCKET;
use policy::config::{NodeCache, Settings, Size};
use policy::rules::EntryKind;
use tokio::net::{TcpStream, UnixStream};

use crate::host::Host;
use crate::patience::{Timely, on_thread, within};
use crate::report::{Area, Line};
use crate::service::Unit;
use crate::words::size;

/// What was seen.
pub(crate) struct Facts {
    /// Whether the config leads images through a cache of this node.
    is_used: bool,
    /// Whether its socket for commands is there.
    has_socket: bool,
    refusal: Option<String>,
    commands: Timely<Result<(), String>>,
    /// Each address, and whether it takes connections.
    addresses: Vec<(SocketAddr, Timely<Result<(), String>>)>,
    dir: PathBuf,
    max_size: Option<Size>,
    min_free: Size,
    /// Bytes of its file system: all, and free ones.
    room: Timely<Option<(u64, u64)>>,
}

/// `settings` are those of the config.
pub(crate) async fn gather(host: &Host, settings: &Settings, limit: Duration) -> Facts {
    let NodeCache {
        listen,
        dir,
        max_size,
        min_free,
        ..
    } = &settings.node_cache;
    let socket = host.place(Path::new(SOCKET));
    let socket = socket.unwrap_or_else(|_| PathBuf::from(SOCKET));
    let commands = within(limit, async {
        let connected = UnixStream::connect(&socket).await;
        connected.map(drop).map_err(|error| error.to_string())
    });
    // A default address may be missing: not every node has IPv6.
    let needed = listen
        .iter()
        .filter(|listen| listen.required || listen.address.is_ipv4());
    let addresses = needed.map(|listen| async move {
        let mut address = listen.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let connected = within(limit, TcpStream::connect(address)).await;
        let connected = connected.map(|connected| connected.map(drop).map_err(|e| e.to_string()));
        (address, connected)
    });
    let (on, folder) = (host.clone(), dir.clone());
    let room = on_thread(limit, move || {
        let place = on.place(&folder).ok()?;
        let system = rustix::fs::statvfs(&place).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
        Some((bytes(system.f_blocks), bytes(system.f_bavail)))
    });
    let (commands, addresses, room) =
        tokio::join!(commands, futures_util::future::join_all(addresses), room,);
    let mut rules = settings.rules.registries.iter();
    Facts {
        is_used: rules.any(|entry| entry.kind == EntryKind::NodeCache),
        has_socket: socket.symlink_metadata().is_ok(),
        refusal: settings.node_cache.refusal(),
        commands,
        addresses,
        dir: dir.clone(),
        max_size: *max_size,
        min_free: *min_free,
        room,
    }
}

/// The lines of it. `unit` is systemd's, where there is one.
pub(crate) fn judge(facts: &Facts, unit: Option<&Unit>) -> Vec<Line> {
    const CHECK: &str = "cache";
    let bad = |check, text: String, mend: String| Line::bad(Area::Cache, check, text, mend);
    let should_run = unit.is_some_and(|unit| unit.is_enabled() || unit.is_active());
    if !facts.is_used && !facts.has_socket && !should_run {
        return vec![Line::ok(
            Area::Cache,
            CHECK,
            "no cache is used on this node",
        )];
    }
    let mut lines = Vec::new();
    if let Some(why) = &facts.refusal {
        lines.push(bad(
            CHECK,
            format!("the cache refuses to start: {why}"),
            "vi /etc/image-cri-shim.yaml".to_owned(),
        ));
    }
    let restart = "systemctl restart image-cri-shim-cache";
    match unit {
        Some(unit) if !unit.is_active() => lines.push(bad(
            "cache.unit",
            format!(
                "image-cri-shim-cache.service is not running: {}",
                unit.state()
            ),
            "systemctl enable --now image-cri-shim-cache".to_owned(),
        )),
        Some(_) | None => {}
    }
    match &facts.commands {
        Ok(Ok(())) => lines.push(Line::ok(
            Area::Cache,
            CHECK,
            format!("the cache answers commands at {SOCKET}"),
        )),
        Ok(Err(why)) => lines.push(bad(
            CHECK,
            format!("no cache answers commands at {SOCKET}: {why}"),
            restart.to_owned(),
        )),
        Err(late) => lines.push(bad(
            CHECK,
            format!("the cache is stuck: {SOCKET}: {late}"),
            restart.to_owned(),
        )),
    }
    for (address, connected) in &facts.addresses {
        let why = match connected {
            Ok(Ok(())) => {
                lines.push(Line::ok(
                    Area::Cache,
                    "cache.listen",
                    format!("it serves images at {address}"),
                ));
                continue;
            }
            Ok(Err(why)) => why.clone(),
            Err(late) => late.to_string(),
        };
        lines.push(bad(
            "cache.listen",
            format!("nobody serves images at {address}, where the cache should: {why}"),
            restart.to_owned(),
        ));
    }
    lines.push(room(facts));
    lines
}

fn room(facts: &Facts) -> Line {
    const CHECK: &str = "cache.room";
    let dir = facts.dir.display();
    let (total, free) = match &facts.room {
        Ok(Some(room)) => *room,
        Ok(None) => {
            return Line::ok(
                Area::Cache,
                CHECK,
                format!("{dir} is made at the cache's first start"),
            );
        }
        Err(late) => {
            let text = format!("{dir} can't be looked at: {late}");
            return Line::bad(Area::Cache, CHECK, text, format!("findmnt -T {dir}"));
        }
    };
    let min_free = facts.min_free.of(total);
    if free < min_free {
        let text = format!(
            "{} are free at {dir}, and nodeCache.minFree keeps {}: the cache stores nothing more, and images pass through it",
            size(free),
            size(min_free)
        );
        return Line::bad(Area::Cache, CHECK, text, "image-cri-shim cache gc");
    }
    match facts
        .max_size
        .map(|max| max.of(total))
        .filter(|max| *max > total)
    {
        Some(max) => Line::warn(
            Area::Cache,
            CHECK,
            format!(
                "nodeCache.maxSize is {}, and the file system of {dir} has {} in all",
                size(max),
                size(total)
            ),
            "vi /etc/image-cri-shim.yaml",
        ),
        None => Line::ok(
            Area::Cache,
            CHECK,
            format!("{} are free at {dir}", size(free)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    fn facts() -> Facts {
        Facts {
            is_used: true,
            has_socket: true,
            refusal: None,
            commands: Ok(Ok(())),
            addresses: vec![(SocketAddr::from(([127, 0, 0, 1], 7439)), Ok(Ok(())))],
            dir: PathBuf::from("/var/lib/image-cri-shim/cache"),
            max_size: None,
            min_free: Size::Bytes(10),
            room: Ok(Some((100, 50))),
        }
    }

    fn worst(facts: &Facts) -> Line {
        let lines = judge(facts, None);
        lines.into_iter().max_by_key(|line| line.verdict).unwrap()
    }

    #[test]
    fn a_cache_that_is_used_has_to_answer_and_to_have_room() {
        assert_eq!(worst(&facts()).verdict, Verdict::Ok);
        let unused = Facts {
            is_used: false,
            has_socket: false,
            commands: Ok(Err(String::new())),
            ..facts()
        };
        assert_eq!(judge(&unused, None).len(), 1);
        let silent = Facts {
            commands: Ok(Err("refused".to_owned())),
            ..facts()
        };
        assert_eq!(worst(&silent).check, "cache");
        let mut closed = facts();
        closed.addresses[0].1 = Ok(Err("refused".to_owned()));
        assert_eq!(worst(&closed).check, "cache.listen");
        let full = Facts {
            room: Ok(Some((100, 9))),
            ..facts()
        };
        assert_eq!(
            worst(&full).mend.as_deref(),
            Some("image-cri-shim cache gc")
        );
        let large = Facts {
            max_size: Some(Size::Bytes(101)),
            ..facts()
        };
        assert_eq!(worst(&large).verdict, Verdict::Warn);
    }
}
