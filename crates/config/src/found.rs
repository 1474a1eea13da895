//! What a look at a source gives, whichever source it is.

use telemetry::report::ConfigPart;

use crate::file::Loaded;

/// What a look has found.
pub(crate) struct Found {
    /// The config, where it is another than the last one.
    pub(crate) new: Option<Loaded>,
    /// What is wrong with what is written, where it is not what is in force.
    pub(crate) problem: Option<String>,
    /// Whether the file alone would leave the site without the rules that are in force: the ConfigMap has them, and the
    /// file could not be written.
    pub(crate) relies_on_config_map: bool,
    /// Each field of what is in force, and where its value comes from.
    pub(crate) parts: Vec<ConfigPart>,
    /// Whether the API server has answered for the ConfigMap, also with no, where it is asked.
    pub(crate) is_answered: bool,
}
