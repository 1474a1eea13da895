//! Reading one kubeconfig file as kubectl reads it.
//!
//! `kube` itself refuses a key that stands twice, and base64 that is folded over lines, both of which
//! kubectl takes.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;
use secrecy::{ExposeSecret, SecretString};
use serde_saphyr::options::DuplicateKeyPolicy;
use thiserror::Error;

/// Why a file is passed over. The texts never quote it: it holds keys.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// It can't be read.
    #[error("{0}")]
    File(#[from] io::Error),
    /// Its bytes are no text.
    #[error("{0}")]
    NotText(#[from] policy::text::NotText),
    /// It is no YAML, or none of a kubeconfig.
    #[error("it is not a kubeconfig")]
    NotKubeconfig,
}

impl ReadError {
    /// Whether there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::File(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// More than any kubeconfig, token or certificate; a mistaken path is refused instead of read.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// Reads the file. Paths in it are meant from its directory.
pub(crate) async fn read(path: &Path) -> Result<Kubeconfig, ReadError> {
    let text = policy::text::decode(files::read_bytes(path, MAX_FILE).await?)?;
    let mut kubeconfig = parse(&text).ok_or(ReadError::NotKubeconfig)?;
    if let Some(directory) = path.parent() {
        make_absolute(&mut kubeconfig, directory);
    }
    Ok(kubeconfig)
}

fn parse(text: &str) -> Option<Kubeconfig> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
    };
    // As a tree first: where a key stands twice, the last one is left in it.
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple_with_options(text, options).ok()?;
    let mut merged = Kubeconfig::default();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let next: Kubeconfig = serde_json::from_value(document).ok()?;
        merged = merged.merge(next).ok()?;
    }
    for cluster in merged
        .clusters
        .iter_mut()
        .flat_map(|named| &mut named.cluster)
    {
        unfold(&mut cluster.certificate_authority_data);
    }
    for user in merged
        .auth_infos
        .iter_mut()
        .flat_map(|named| &mut named.auth_info)
    {
        unfold(&mut user.client_certificate_data);
        if let Some(key) = &mut user.client_key_data {
            *key = SecretString::from(without_blanks(key.expose_secret()));
        }
    }
    Some(merged)
}

/// Puts what stands in files into the kubeconfig itself, for the context that it uses: `kube` reads them on the thread
/// that asks, for as long as that takes.
///
/// # Errors
/// A file can't be read: what it is for, and why. Without secrets.
pub(crate) async fn inline(kubeconfig: &mut Kubeconfig) -> Result<(), String> {
    let named = kubeconfig.current_context.clone();
    let contexts = kubeconfig.contexts.iter();
    let context = contexts
        .filter(|context| Some(&context.name) == named.as_ref())
        .find_map(|context| context.context.clone());
    let Some(context) = context else {
        // Whoever uses it says so.
        return Ok(());
    };
    let clusters = kubeconfig.clusters.iter_mut();
    let cluster = clusters.filter(|cluster| cluster.name == context.cluster);
    for cluster in cluster.flat_map(|named| &mut named.cluster) {
        let (file, data) = (
            &cluster.certificate_authority,
            &mut cluster.certificate_authority_data,
        );
        inlined(file.as_deref(), data, "certificate authority").await?;
    }
    let users = kubeconfig.auth_infos.iter_mut();
    let user = users.filter(|user| Some(&user.name) == context.user.as_ref());
    for user in user.flat_map(|named| &mut named.auth_info) {
        let (file, data) = (&user.client_certificate, &mut user.client_certificate_data);
        inlined(file.as_deref(), data, "client certificate").await?;
        let mut key = None;
        if user.client_key_data.is_none() {
            inlined(user.client_key.as_deref(), &mut key, "client key").await?;
        }
        if let Some(key) = key {
            user.client_key_data = Some(SecretString::from(key));
        }
    }
    Ok(())
}

async fn inlined(file: Option<&str>, data: &mut Option<String>, what: &str) -> Result<(), String> {
    let Some(file) = file.filter(|file| !file.is_empty() && data.is_none()) else {
        return Ok(());
    };
    let bytes = files::read_bytes(Path::new(file), MAX_FILE).await;
    let bytes = bytes.map_err(|error| format!("its {what} {file} can't be read: {error}"))?;
    *data = Some(STANDARD.encode(bytes));
    Ok(())
}

fn unfold(data: &mut Option<String>) {
    if let Some(data) = data {
        *data = without_blanks(data);
    }
}

fn without_blanks(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

fn make_absolute(kubeconfig: &mut Kubeconfig, directory: &Path) {
    let absolute = |path: &mut Option<String>| {
        if let Some(text) = path
            && !text.is_empty()
            && Path::new(text).is_relative()
        {
            *text = directory.join(&*text).display().to_string();
        }
    };
    for cluster in kubeconfig
        .clusters
        .iter_mut()
        .flat_map(|named| &mut named.cluster)
    {
        absolute(&mut cluster.certificate_authority);
    }
    for user in kubeconfig
        .auth_infos
        .iter_mut()
        .flat_map(|named| &mut named.auth_info)
    {
        absolute(&mut user.client_certificate);
        absolute(&mut user.client_key);
        absolute(&mut user.token_file);
        // A program without a `/` is looked for in PATH.
        if let Some(exec) = &mut user.exec
            && exec.command.as_ref().is_some_and(|c| c.contains('/'))
        {
            absolute(&mut exec.command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_repeated_key_is_left() {
        let text = "current-context: a\ncurrent-context: b\nusers: [{name: u, user: {token: x, token: y}}]\nusers: [{name: u, user: {token: z, token: w}}]\n";
        let kubeconfig = parse(text).unwrap();
        assert_eq!(kubeconfig.current_context.as_deref(), Some("b"));
        let [user] = kubeconfig.auth_infos.as_slice() else {
            panic!("{kubeconfig:?}");
        };
        let token = user.auth_info.as_ref().unwrap().token.as_ref().unwrap();
        assert_eq!(token.expose_secret(), "w");
    }

    #[test]
    fn data_may_be_folded_over_lines() {
        for data in [
            "QUJD\n      REVG\n",
            "|\n      QUJD\n      REVG\n",
            ">-\n      QUJD\n      REVG\n",
            "\"QUJD\\\n      REVG\\n\"\n",
        ] {
            let text = format!(
                "clusters:\n- name: c\n  cluster:\n    certificate-authority-data: {data}users:\n- name: u\n  user:\n    client-certificate-data: {data}    client-key-data: {data}"
            );
            let kubeconfig = parse(&text).unwrap();
            let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
            let user = kubeconfig.auth_infos[0].auth_info.as_ref().unwrap();
            for found in [
                cluster.certificate_authority_data.as_deref(),
                user.client_certificate_data.as_deref(),
                user.client_key_data
                    .as_ref()
                    .map(ExposeSecret::expose_secret),
            ] {
                assert_eq!(found, Some("QUJDREVG"), "{data}");
            }
        }
    }

    #[tokio::test]
    async fn files_are_read_within_bounds_and_of_the_context_in_use_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        std::fs::write(dir.path().join("good"), "PEM").unwrap();
        let text = |cluster: &str, user: &str| {
            format!(
                "current-context: c\ncontexts: [{{name: c, context: {{cluster: one, user: one}}}}]\n\
                 clusters: [{{name: one, cluster: {{{cluster}}}}}, {{name: other, cluster: {{certificate-authority: pipe}}}}]\n\
                 users: [{{name: one, user: {{{user}}}}}, {{name: other, user: {{client-key: pipe}}}}]\n"
            )
        };
        let file = dir.path().join("kubeconfig");
        let read_all = async |cluster: &str, user: &str| {
            std::fs::write(&file, text(cluster, user)).unwrap();
            let mut kubeconfig = read(&file).await.unwrap();
            let done = inline(&mut kubeconfig).await;
            done.map(|()| kubeconfig)
        };
        let all = "client-certificate: good, client-key: good";
        let kubeconfig = read_all("certificate-authority: good", all).await.unwrap();
        let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
        let user = kubeconfig.auth_infos[0].auth_info.as_ref().unwrap();
        let key = user.client_key_data.as_ref();
        for found in [
            cluster.certificate_authority_data.as_deref(),
            user.client_certificate_data.as_deref(),
            key.map(ExposeSecret::expose_secret),
        ] {
            assert_eq!(found, Some("UEVN"));
        }
        for (cluster, user) in [
            ("certificate-authority: pipe", all),
            ("", "client-certificate: pipe"),
            ("", "client-key: pipe"),
        ] {
            let error = read_all(cluster, user).await.unwrap_err();
            assert!(error.contains("it is not a regular file"), "{error}");
        }
        // What stands in it goes before what it points to.
        let data = "certificate-authority: pipe, certificate-authority-data: UEVN";
        read_all(data, "").await.unwrap();
        // Nor is the file itself waited for.
        let error = read(&pipe).await.unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn paths_are_meant_from_the_files_directory() {
        let mut kubeconfig = parse(
            "clusters: [{name: c, cluster: {certificate-authority: ca.crt}}]\nusers: [{name: u, user: {tokenFile: /abs, client-key: k, exec: {command: ./login}}}, {name: v, user: {exec: {command: aws}}}]",
        )
        .unwrap();
        make_absolute(&mut kubeconfig, Path::new("/etc/kubernetes"));
        let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(
            cluster.certificate_authority.as_deref(),
            Some("/etc/kubernetes/ca.crt")
        );
        let user = |at: usize| kubeconfig.auth_infos[at].auth_info.as_ref().unwrap();
        let command = |at: usize| user(at).exec.as_ref().unwrap().command.as_deref();
        assert_eq!(user(0).token_file.as_deref(), Some("/abs"));
        assert_eq!(user(0).client_key.as_deref(), Some("/etc/kubernetes/k"));
        assert_eq!(command(0), Some("/etc/kubernetes/./login"));
        assert_eq!(command(1), Some("aws"));
    }
}
