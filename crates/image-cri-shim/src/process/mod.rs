//! This process as its surroundings see it: signals, logs, systemd, what it takes, who takes over from it.

pub(crate) mod handover;
pub(crate) mod limits;
pub(crate) mod logging;
pub(crate) mod pod;
pub(crate) mod signals;
pub(crate) mod systemd;
pub(crate) mod unit;
pub(crate) mod usage;
