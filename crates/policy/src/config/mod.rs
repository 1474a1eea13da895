//! The config: what was written ([`RawConfig`]) and what it means ([`Settings`]).
//!
//! ```
//! use policy::config::Settings;
//!
//! let file = "address: http://sealos.hub:5000\nregistrys: []\n";
//! let (settings, findings) = Settings::read(file, &|_name| None);
//! assert!(findings[0].message.contains("did you mean `registries`?"));
//! assert_eq!(settings.rules.registries[0].endpoint.to_string(), "http://sealos.hub:5000");
//! ```

mod auth;
mod bounds;
mod configmap;
mod credential_provider;
mod diagnostic;
mod fields;
mod key;
mod meaning;
mod merge;
mod node_cache;
mod raw;
mod reader;
mod render;
mod routing;
mod settings;
mod sources;
mod start;
mod webhook;

pub use crate::yaml::Position;
pub use auth::CredentialPlugins;
pub use configmap::{CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, ConfigMap};
pub use credential_provider::{
    CacheKeyType, CredentialProvider, ProviderAnswer, ProviderAnswerError,
};
pub use diagnostic::{Diagnostic, Severity};
pub use fields::Located;
pub use key::Key;
pub use merge::{Merged, merge};
pub use node_cache::{
    CacheTls, ListenAddress, NodeCache, RawCacheTls, RawNodeCache, RawS3Credentials, RawS3Store,
    S3Credentials, S3Store, Size,
};
pub use raw::{
    RawAuth, RawCache, RawConfig, RawConfigMapEnv, RawNodeCacheUse, RawRedirect, RawRegistry,
};
pub use reader::Environment;
pub use render::{MAX_FILE_BYTES, masked, render, rewrite};
pub use routing::removes_all_routing;
pub use settings::{CacheSettings, Settings};
pub use sources::{Found, Need};
pub use start::{BrokenText, StartConfig, StartRefusal, start_without_file, without_rules};
pub use webhook::{Rewrite, WebhookSettings};

#[cfg(test)]
mod tests;
