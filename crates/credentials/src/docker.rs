//! A docker or podman `config.json`, and the helpers that it names.

use std::path::Path;
use std::time::Duration;

use policy::Endpoint;
use policy::config::Found;
use policy::docker_config::{self, DockerConfig, Lookup};
use secrecy::ExposeSecret;

use crate::LookupResult;
use crate::program::{Program, ProgramError};

/// How long a helper may take. It may have to ask a cloud's API.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a helper's answer is used. Helpers keep their own caches, and don't say for how long.
const HELPER_ANSWER_TTL: Duration = Duration::from_secs(600);

/// Looks `endpoint` up in the text of `path`.
pub(crate) async fn look_up(path: &Path, text: &str, endpoint: &Endpoint) -> LookupResult {
    let source = format!("authFile {}", path.display());
    let looked = DockerConfig::parse(text).and_then(|config| config.lookup(endpoint));
    match looked {
        Err(error) => LookupResult::failed(format!("no credentials: {source}: {error}")),
        Ok(Lookup::Credentials(credentials)) => LookupResult::good(
            Found {
                credentials: Some(credentials),
                note: None,
            },
            None,
        ),
        Ok(Lookup::Unknown) => LookupResult::good(nothing(&source, endpoint), None),
        Ok(Lookup::Helper { name, server }) => helper(&source, &name, &server, endpoint).await,
    }
}

fn nothing(source: &str, endpoint: &Endpoint) -> Found {
    Found {
        credentials: None,
        note: Some(format!(
            "no credentials: {source} has no entry for {}",
            endpoint.domain()
        )),
    }
}

/// `docker-credential-NAME get`, with the server's name on standard input.
async fn helper(source: &str, name: &str, server: &str, endpoint: &Endpoint) -> LookupResult {
    let program = format!("docker-credential-{name}");
    let run = Program {
        path: Path::new(&program),
        args: &["get".to_owned()],
        env: &[],
        input: server,
        timeout: HELPER_TIMEOUT,
    };
    match run.run().await {
        Ok(answer) => match docker_config::from_helper(&answer) {
            Ok(credentials) => LookupResult::good(
                Found {
                    credentials: Some(credentials),
                    note: None,
                },
                Some(HELPER_ANSWER_TTL),
            ),
            Err(error) => LookupResult::failed(format!(
                "no credentials: {source}: the answer of {program}: {error}"
            )),
        },
        // The protocol's one message that is an answer.
        Err(ProgramError::Failed { output, .. })
            if output.expose_secret().trim() == "credentials not found in native keychain" =>
        {
            LookupResult::good(nothing(source, endpoint), Some(HELPER_ANSWER_TTL))
        }
        Err(error) => LookupResult::failed(format!("no credentials: {source}: {error}")),
    }
}
