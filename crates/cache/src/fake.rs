//! Places with the faults of the real world, in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use policy::{CredentialChoice, Credentials, Endpoint, TlsOptions};

use crate::digest::Digest;
use crate::manifest::OCI_INDEX;
use crate::name::Repository;
use crate::upstream::{
    Asker, BlobBody, Described, Failure, List, ListBody, ManifestBody, Place, Upstream,
};

/// How a place sends blobs.
#[derive(Clone, Debug, Default)]
pub(crate) enum Sending {
    /// As a good registry.
    #[default]
    Well,
    /// Breaks off after so many bytes of each answer.
    CutAfter(u64),
    /// Breaks off at these offsets of the blob, once at each.
    CutAt(Vec<u64>),
    /// Sends nothing more at this offset, the first time.
    StallAt(u64),
    /// Other bytes of the same length.
    Wrongly,
    /// Everything from the beginning, whatever part was asked for.
    WithoutRanges,
    /// Everything from the beginning, and never more than so many bytes.
    WithoutRangesCutAfter(u64),
    /// Without saying how long it is.
    WithoutLength,
    /// Neither how long it is, nor more than this: it breaks off there each time.
    WithoutLengthCutAt(u64),
    /// An empty body with a 200.
    Nothing,
}

impl Sending {
    fn hides_length(&self) -> bool {
        matches!(self, Self::WithoutLength | Self::WithoutLengthCutAt(_))
    }
}

/// Who may have what a place has.
#[derive(Clone, Debug, Default)]
pub(crate) enum Doors {
    #[default]
    Open,
    Closed,
    /// For this user name.
    For(String),
}

/// One place.
#[derive(Debug, Default)]
pub(crate) struct FakePlace {
    pub(crate) priority: u32,
    pub(crate) is_callers: bool,
    /// Whether the config has credentials for it.
    pub(crate) is_configured: bool,
    pub(crate) sending: Sending,
    pub(crate) doors: Doors,
    /// Whether its circuit is open.
    pub(crate) is_silent: bool,
    /// What it answers to everything, where it does not answer well.
    pub(crate) failure: Option<Failure>,
    pub(crate) manifests: HashMap<String, (Bytes, String)>,
    pub(crate) blobs: HashMap<Digest, Bytes>,
    /// Whether it answers to who asks for referrers, with an empty list, instead of 404.
    pub(crate) lists_referrers: bool,
    /// The digest that a HEAD names instead of the right one.
    pub(crate) named: Option<Digest>,
    /// What it answers to who asks for a blob while it sends one.
    pub(crate) one_at_a_time: Option<Failure>,
    /// Held by each blob that is being sent.
    pub(crate) under_way: Arc<()>,
    /// Wait before every answer.
    pub(crate) delay: Duration,
    /// Wait before every piece of a blob.
    pub(crate) pace: Duration,
    pub(crate) heads: u64,
    pub(crate) gets: u64,
    pub(crate) blob_heads: u64,
    pub(crate) blob_gets: u64,
    pub(crate) bytes: u64,
    pub(crate) askers: Vec<Asker>,
}

/// All places.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeUpstream {
    places: Arc<Mutex<Vec<(String, FakePlace)>>>,
}

const PIECE: usize = 16 * 1024;

impl FakeUpstream {
    /// Adds a place, or changes one.
    pub(crate) fn with(&self, name: &str, change: impl FnOnce(&mut FakePlace)) {
        let mut places = self.places.lock();
        let at = places.iter().position(|(known, _)| known == name);
        let at = at.unwrap_or_else(|| {
            places.push((name.to_owned(), FakePlace::default()));
            places.len() - 1
        });
        change(&mut places[at].1);
    }

    pub(crate) fn read<T>(&self, name: &str, read: impl FnOnce(&FakePlace) -> T) -> T {
        let places = self.places.lock();
        let (_, place) = places.iter().find(|(known, _)| known == name).unwrap();
        read(place)
    }

    /// Bytes of blobs that all places have sent.
    pub(crate) fn sent(&self) -> u64 {
        self.places
            .lock()
            .iter()
            .map(|(_, place)| place.bytes)
            .sum()
    }

    async fn enter(
        &self,
        place: &Place,
        asker: &Asker,
        count: impl FnOnce(&mut FakePlace),
    ) -> Result<(), Failure> {
        let delay = {
            let mut places = self.places.lock();
            let (_, fake) = places
                .iter_mut()
                .find(|(name, _)| *name == place.name)
                .unwrap();
            count(fake);
            fake.askers.push(asker.clone());
            if let Some(failure) = &fake.failure {
                return Err(failure.clone());
            }
            let user = match &place.credentials {
                CredentialChoice::Callers => asker.credentials.as_ref(),
                CredentialChoice::Configured(configured) => Some(configured),
                CredentialChoice::Anonymous => None,
            };
            let may = match &fake.doors {
                Doors::Open => true,
                Doors::Closed => false,
                Doors::For(name) => user.is_some_and(|user: &Credentials| user.username() == name),
            };
            if !may {
                return Err(Failure::Refused("401".into()));
            }
            fake.delay
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }
}

impl Upstream for FakeUpstream {
    fn places(&self, repository: &Repository) -> Vec<Place> {
        let places = self.places.lock();
        let mut all: Vec<Place> = places
            .iter()
            .map(|(name, fake)| Place {
                name: name.clone(),
                endpoint: Endpoint::parse(&format!("{name}.test")).unwrap().0,
                repository: repository.path().to_owned(),
                credentials: match (fake.is_callers, fake.is_configured) {
                    (true, _) => CredentialChoice::Callers,
                    (_, true) => CredentialChoice::Configured(Credentials::new("config", "secret")),
                    (false, false) => CredentialChoice::Anonymous,
                },
                tls: TlsOptions::default(),
                priority: fake.priority,
            })
            .collect();
        all.sort_by_key(|place| std::cmp::Reverse(place.priority));
        all
    }

    fn is_configured(&self, _: &str) -> bool {
        false
    }

    fn is_silent(&self, place: &Place) -> Option<String> {
        self.read(&place.name, |fake| {
            fake.is_silent.then(|| "circuit open".to_owned())
        })
    }

    fn head_manifest<'a>(
        &'a self,
        place: &'a Place,
        manifest: &'a str,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<Described, Failure>> {
        Box::pin(async move {
            self.enter(place, asker, |fake| fake.heads += 1).await?;
            self.read(&place.name, |fake| {
                let (content, _) = fake.manifests.get(manifest).ok_or(Failure::NotFound)?;
                let digest = fake.named.clone().unwrap_or_else(|| Digest::of(content));
                Ok(Described {
                    digest,
                    warning: None,
                })
            })
        })
    }

    fn get_manifest<'a>(
        &'a self,
        place: &'a Place,
        manifest: &'a str,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<ManifestBody, Failure>> {
        Box::pin(async move {
            self.enter(place, asker, |fake| fake.gets += 1).await?;
            self.read(&place.name, |fake| {
                let (content, media_type) =
                    fake.manifests.get(manifest).ok_or(Failure::NotFound)?;
                let digest = fake.named.clone().unwrap_or_else(|| Digest::of(content));
                Ok(ManifestBody {
                    content: content.clone(),
                    media_type: Some(media_type.clone()),
                    digest: Some(digest),
                    warning: None,
                })
            })
        })
    }

    fn head_blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<Option<u64>, Failure>> {
        Box::pin(async move {
            self.enter(place, asker, |fake| fake.blob_heads += 1)
                .await?;
            self.read(&place.name, |fake| {
                let blob = fake.blobs.get(digest).ok_or(Failure::NotFound)?;
                let is_said = !fake.sending.hides_length();
                Ok(is_said.then_some(blob.len() as u64))
            })
        })
    }

    fn get_blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        from: u64,
        to: Option<u64>,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<BlobBody, Failure>> {
        Box::pin(async move {
            self.enter(place, asker, |fake| fake.blob_gets += 1).await?;
            let (blob, sending, pace, under_way) = self.read(&place.name, |fake| {
                if let Some(failure) = &fake.one_at_a_time
                    && Arc::strong_count(&fake.under_way) > 1
                {
                    return Err(failure.clone());
                }
                let blob = fake.blobs.get(digest).ok_or(Failure::NotFound)?;
                let under_way = Arc::clone(&fake.under_way);
                Ok((blob.clone(), fake.sending.clone(), fake.pace, under_way))
            })?;
            let total = blob.len() as u64;
            let knows_ranges = !matches!(
                sending,
                Sending::WithoutRanges | Sending::WithoutRangesCutAfter(_)
            );
            if knows_ranges && from > 0 && from >= total {
                return Err(Failure::Shorter("416".into()));
            }
            let mut content = blob.to_vec();
            let mut start = from;
            match sending {
                Sending::Wrongly => content.iter_mut().for_each(|byte| *byte ^= 0x55),
                _ if !knows_ranges => start = 0,
                Sending::Nothing => content.clear(),
                _ => {}
            }
            let total_said = match sending {
                _ if sending.hides_length() => None,
                Sending::Nothing => Some(0),
                _ => Some(total),
            };
            let end = match start {
                start if start == from => to.unwrap_or(total).min(total),
                _ => total,
            };
            let (begin, end) = (
                start.min(content.len() as u64),
                end.min(content.len() as u64),
            );
            let content = Bytes::from(content[begin as usize..end as usize].to_vec());
            let (upstream, name) = (self.clone(), place.name.clone());
            let pieces = stream::unfold((content, start, 0u64), move |(mut rest, at, sent)| {
                let (upstream, name) = (upstream.clone(), name.clone());
                let _under_way = &under_way;
                async move {
                    let is_cut_at_the_end = upstream.read(&name, |fake| {
                        matches!(fake.sending, Sending::WithoutLengthCutAt(end) if end == at)
                    });
                    if rest.is_empty() && !(is_cut_at_the_end && sent > 0) {
                        return None;
                    }
                    if !pace.is_zero() {
                        tokio::time::sleep(pace).await;
                    }
                    let mut length = rest.len().min(PIECE) as u64;
                    let mut stall = false;
                    let mut cut = false;
                    upstream.with(&name, |fake| {
                        match &mut fake.sending {
                            Sending::CutAfter(most) | Sending::WithoutRangesCutAfter(most)
                                if sent + length > *most =>
                            {
                                length = most.saturating_sub(sent);
                                cut = length == 0;
                            }
                            Sending::CutAt(offsets) => {
                                if let Some(which) = offsets.iter().position(|&o| at == o) {
                                    offsets.remove(which);
                                    cut = true;
                                } else if let Some(next) = offsets
                                    .iter()
                                    .copied()
                                    .filter(|&o| at < o && o < at + length)
                                    .min()
                                {
                                    length = next - at;
                                }
                            }
                            Sending::WithoutLengthCutAt(offset)
                                if at + length > *offset || rest.is_empty() =>
                            {
                                length = offset.saturating_sub(at);
                                cut = length == 0;
                            }
                            Sending::StallAt(offset) if at <= *offset && *offset < at + length => {
                                length = *offset - at;
                                if length == 0 {
                                    stall = true;
                                    fake.sending = Sending::Well;
                                }
                            }
                            _ => {}
                        }
                        if !cut && !stall {
                            fake.bytes += length;
                        }
                    });
                    if stall {
                        std::future::pending::<()>().await;
                    }
                    if cut {
                        return Some((Err("reset".to_owned()), (Bytes::new(), at, sent)));
                    }
                    let piece = rest.split_to(length as usize);
                    Some((Ok(piece), (rest, at + length, sent + length)))
                }
            });
            Ok(BlobBody {
                start,
                is_part: (from > 0 || to.is_some()) && start == from && knows_ranges,
                total: total_said,
                digest: None,
                body: pieces.boxed(),
            })
        })
    }

    fn get_list<'a>(
        &'a self,
        place: &'a Place,
        list: &'a List,
        _query: Option<&'a str>,
        asker: &'a Asker,
    ) -> BoxFuture<'a, Result<ListBody, Failure>> {
        Box::pin(async move {
            self.enter(place, asker, |_| ()).await?;
            let (content, lists_referrers) = self.read(&place.name, |fake| {
                let tags: Vec<&String> = fake
                    .manifests
                    .keys()
                    .filter(|key| !key.contains(':'))
                    .collect();
                let content = serde_json::json!({"name": place.repository, "tags": tags});
                (content.to_string(), fake.lists_referrers)
            });
            match list {
                List::Referrers(_) if lists_referrers => Ok(ListBody {
                    content: r#"{"schemaVersion":2,"manifests":[]}"#.into(),
                    media_type: Some(OCI_INDEX.into()),
                    next: None,
                    filters: None,
                }),
                List::Tags => Ok(ListBody {
                    content: content.into(),
                    media_type: Some("application/json".into()),
                    next: None,
                    filters: None,
                }),
                List::Referrers(_) => Err(Failure::NotFound),
            }
        })
    }
}
