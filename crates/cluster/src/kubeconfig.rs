//! Reading one kubeconfig file as kubectl reads it.
//!
//! `kube` itself refuses a key that stands twice, and base64 that is folded over lines, both of which
//! kubectl takes.

use std::io;
use std::path::Path;

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
