//! The credentials of a PullImageRequest, read and replaced.

use std::fmt;

use policy::docker_config::decode_auth;
use policy::{Credentials, Proof};

use super::AUTH;
use super::fields::{Fields, WireError, WireType, put_field, text};

/// What becomes of `PullImageRequest.auth`.
#[derive(Debug, Clone, Copy)]
pub enum AuthEdit<'a> {
    /// Stays as it came, byte for byte.
    Keep,
    /// Every occurrence is removed, whatever it holds: the pull is anonymous.
    Remove,
    /// Every occurrence is removed, unknown fields inside it too (they may be secrets of a newer
    /// kubelet), and one with these credentials stands where the last one was.
    Replace {
        /// User name and password.
        credentials: &'a Credentials,
        /// The URL of the host that they are for. containerd compares its host and port with those of
        /// each host that asks for credentials; without it, it gives them to any.
        server_address: &'a str,
    },
}

/// `AuthConfig`: what kubelet sent for the host that the user wrote. Nothing of it is ever shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestAuth {
    /// Field 1.
    pub username: String,
    /// Field 2.
    pub password: String,
    /// Field 3: base64 of `user:password`.
    pub auth: String,
    /// Field 4: the host the credentials are for; kubelet leaves it empty.
    pub server_address: String,
    /// Field 5: a token that is traded for another at the registry.
    pub identity_token: String,
    /// Field 6: a bearer token to be sent as it is.
    pub registry_token: String,
}

impl RequestAuth {
    /// True when no field that could prove anything is set.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.auth.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
    }

    /// User name and password, in the order in which containerd looks for them: the two fields, else
    /// what `auth` decodes to. `None` for tokens, for nothing, and for an `auth` that is not base64.
    pub fn basic(&self) -> Option<Credentials> {
        if !self.username.is_empty() {
            return Some(Credentials::new(&self.username, &self.password));
        }
        if self.auth.is_empty() || !self.identity_token.is_empty() {
            return None;
        }
        let pair = decode_auth(self.auth.trim_end_matches('\0'))?;
        let (username, password) = pair.split_once(':')?;
        // Old docker configs end the password with NUL bytes; containerd trims them too.
        Some(Credentials::new(username, password.trim_matches('\0')))
    }
}

impl fmt::Debug for RequestAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestAuth(***)")
    }
}

/// The credentials (field 2) of a PullImageRequest; `None` when the field never occurs.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub fn request_auth(request: &[u8]) -> Result<Option<RequestAuth>, WireError> {
    let mut found = None;
    for field in Fields::of(request) {
        let field = field?;
        if field.number != AUTH {
            continue;
        }
        let part = field.expect(WireType::Len)?;
        let auth: &mut RequestAuth = found.get_or_insert_default();
        for field in Fields::of(part) {
            let field = field?;
            let slot = match field.number {
                1 => &mut auth.username,
                2 => &mut auth.password,
                3 => &mut auth.auth,
                4 => &mut auth.server_address,
                5 => &mut auth.identity_token,
                6 => &mut auth.registry_token,
                _ => continue,
            };
            text(field.expect(WireType::Len)?)?.clone_into(slot);
        }
    }
    Ok(found)
}

/// The request with its credentials as `edit` says; everything else as it was.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub(super) fn replace_auth(request: Vec<u8>, edit: AuthEdit<'_>) -> Result<Vec<u8>, WireError> {
    if matches!(edit, AuthEdit::Keep) {
        return Ok(request);
    }
    let mut last = None;
    for field in Fields::of(&request) {
        let field = field?;
        if field.number == AUTH {
            field.expect(WireType::Len)?;
            last = Some(field.span.start);
        }
    }
    let mut out = Vec::with_capacity(request.len() + 128);
    for field in Fields::of(&request) {
        let field = field?;
        if field.number != AUTH {
            out.extend_from_slice(request.get(field.span).unwrap_or_default());
        } else if last == Some(field.span.start) {
            put_auth(edit, &mut out);
        }
    }
    if last.is_none() {
        put_auth(edit, &mut out);
    }
    Ok(out)
}

fn put_auth(edit: AuthEdit<'_>, out: &mut Vec<u8>) {
    if let AuthEdit::Replace {
        credentials,
        server_address,
    } = edit
    {
        let mut config = Vec::new();
        match credentials.proof() {
            Proof::Password { username, password } => {
                put_field(1, username.as_bytes(), &mut config);
                put_field(2, password.as_bytes(), &mut config);
            }
            Proof::IdentityToken(token) => put_field(5, token.as_bytes(), &mut config),
            Proof::RegistryToken(token) => put_field(6, token.as_bytes(), &mut config),
        }
        put_field(4, server_address.as_bytes(), &mut config);
        put_field(AUTH, &config, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_come_from_the_fields_or_from_auth() {
        let fields = RequestAuth {
            username: "u".into(),
            password: "p:q".into(),
            auth: "bm90OnRoaXM=".into(),
            ..RequestAuth::default()
        };
        assert_eq!(fields.basic(), Some(Credentials::new("u", "p:q")));

        for encoded in [
            "dXNlcjpwYTpzcw==",
            "dXNlcjpwYTpzcw",
            // Folded, as `base64` of coreutils writes long texts; Go's decoder passes line ends over.
            "dXNlcjpw\nYTpzcw==\n",
            "dXNl\r\ncjpwYTpz\r\ncw==",
            "dXNlcjpwYTpzcw==\0\0",
        ] {
            let auth = RequestAuth {
                auth: encoded.into(),
                ..RequestAuth::default()
            };
            assert_eq!(auth.basic(), Some(Credentials::new("user", "pa:ss")));
            assert!(!auth.is_empty());
        }
    }

    #[test]
    fn what_is_no_user_and_password_gives_none() {
        assert!(RequestAuth::default().basic().is_none());
        assert!(RequestAuth::default().is_empty());
        for auth in ["%%%", "bm9jb2xvbg=="] {
            let auth = RequestAuth {
                auth: auth.into(),
                ..RequestAuth::default()
            };
            assert!(auth.basic().is_none());
        }
        let token = RequestAuth {
            registry_token: "t".into(),
            ..RequestAuth::default()
        };
        assert!(token.basic().is_none());
        assert!(!token.is_empty());
    }

    #[test]
    fn debug_shows_nothing() {
        let auth = RequestAuth {
            username: "admin".into(),
            password: "passw0rd".into(),
            ..RequestAuth::default()
        };
        assert_eq!(format!("{auth:?}"), "RequestAuth(***)");
    }

    #[test]
    fn tokens_have_fields_of_their_own() {
        for (credentials, identity, registry) in [
            (Credentials::identity_token("t"), "t", ""),
            (Credentials::registry_token("t"), "", "t"),
        ] {
            let edit = AuthEdit::Replace {
                credentials: &credentials,
                server_address: "https://reg.io",
            };
            let edited = replace_auth(Vec::new(), edit).unwrap();
            let auth = request_auth(&edited).unwrap().unwrap();
            assert_eq!((auth.username.as_str(), auth.password.as_str()), ("", ""));
            assert_eq!(auth.identity_token, identity);
            assert_eq!(auth.registry_token, registry);
            assert_eq!(auth.server_address, "https://reg.io");
        }
    }
}
