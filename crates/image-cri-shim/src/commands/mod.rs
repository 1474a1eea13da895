//! Commands for people: they look, print and end.
//!
//! | module | what it does |
//! |---|---|
//! | [`resolve`] | where images would come from and why |
//! | [`status`], [`history`] | the running shim, and what it decided |
//! | [`handover`] | letting a newer program take over from the running shim |
//! | [`install`] | leading a node's kubelet to the shim, and back |
//! | [`doctor`] | what is wrong on this node |
//! | [`cache`] | the node cache's images |
//! | [`config`] | checking and showing configs |
//! | [`manual`] | completions and man pages |
//! | [`daemon`] | the running shim, asked over its socket |
//! | [`inputs`] | which images a command is about |
//! | [`item`] | one image and what became of it |
//! | [`render`] | reports as pages for a terminal |
//! | [`terminal`], [`screen`] | where pages go |

pub(crate) mod cache;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod doctor;
pub(crate) mod handover;
pub(crate) mod history;
pub(crate) mod inputs;
pub(crate) mod install;
pub(crate) mod item;
pub(crate) mod manual;
pub(crate) mod render;
pub(crate) mod resolve;
pub(crate) mod screen;
pub(crate) mod status;
pub(crate) mod terminal;
