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

mod diagnostic;
mod fields;
mod raw;
mod settings;
mod yaml;

pub use diagnostic::{Diagnostic, Severity};
pub use fields::Located;
pub use raw::{RawAuth, RawCache, RawConfig, RawRedirect, RawRegistry};
pub use settings::{CacheSettings, Environment, Settings};
pub use yaml::Position;

#[cfg(test)]
mod tests;
