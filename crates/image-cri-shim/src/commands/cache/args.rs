//! The command line of `cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::node_cache;
use crate::options::ServiceArgs;

/// Keep images on this node: a pull-through registry that serves while upstreams are down
///
/// Without a command it serves. The commands ask the running cache over its socket, and open its directory
/// themselves when none runs.
///
/// Exit status of the commands: 0, 1 when something could not be done or is damaged, 2 when the command line or
/// the config is wrong or the cache failed. The cache itself, and `--dry-run`, end with 0, or with 1 when it can't
/// serve, and 2 when the command line is wrong.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct CacheArgs {
    #[command(flatten)]
    pub(crate) service_args: ServiceArgs,

    /// Where the running cache answers commands [default: $IMAGE_CRI_SHIM_CACHE_SOCKET, else
    /// /run/image-cri-shim-cache.sock]
    #[arg(long, global = true, value_name = "SOCKET")]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Option<CacheCommand>,
}

impl CacheArgs {
    /// Where the running cache answers commands.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(node_cache::socket)
    }
}

/// A command for the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show how the cache is: what was asked for and found, what it holds, what is arriving
    Status {
        #[command(flatten)]
        config: CacheConfig,

        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Fetch images before they are wanted
    ///
    /// What is there already is not fetched again: after a break, run it again. Without any IMAGE and MANIFEST a
    /// list is read from standard input, one image a line.
    Warm {
        #[command(flatten)]
        config: CacheConfig,

        /// The images; `-` reads a list from standard input
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,

        /// A manifest of any kind, YAML or JSON, to take the images from; a directory stands for its
        /// *.yaml, *.yml and *.json, and `-` for standard input. Images of kuik's CachedImage objects with
        /// `retain: true` are pinned
        #[arg(short = 'f', long = "manifest", value_name = "MANIFEST")]
        manifests: Vec<PathBuf>,

        /// Take the images that manifests name in arguments, environment variables and ConfigMaps, too
        #[arg(long)]
        all: bool,

        /// Platforms of images that have several: os/architecture, or all [default: this machine's]
        #[arg(long = "platform", value_name = "PLATFORM")]
        platforms: Vec<String>,

        /// Never evict them
        #[arg(long)]
        pin: bool,
    },
    /// List the images in the cache
    Ls {
        #[command(flatten)]
        config: CacheConfig,

        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Delete images
    Rm(Named),
    /// Never evict images
    Pin(Named),
    /// Let images be evicted again
    Unpin(Named),
    /// Read every blob and compare it with its digest
    Verify {
        #[command(flatten)]
        config: CacheConfig,

        /// Delete what is damaged, and fetch it anew
        #[arg(long)]
        repair: bool,
    },
    /// Make room as maxSize and minFree want it
    Gc {
        #[command(flatten)]
        config: CacheConfig,

        /// Delete in the shared store (nodeCache.store.s3) what nobody has used for unusedFor, instead
        #[arg(long)]
        shared: bool,
    },
    /// Write images to a file, an OCI image layout in a tar: for a site that no network leads to
    ///
    /// containerd, Docker, podman and skopeo can read it, too. Of an image for several platforms those are
    /// written that are whole in the cache; `cache warm --platform all` fetches all of them.
    Export {
        #[command(flatten)]
        config: CacheConfig,

        /// NAME, NAME@DIGEST or DIGEST
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,

        /// The file, which gets its name when it is whole; `-` for standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take the images of an OCI image layout in
    ///
    /// What `cache export`, `ctr images export`, `skopeo copy … oci-archive:…`, `docker save` and BuildKit
    /// write. Every byte is verified. An imported tag is served without asking any registry, to everybody.
    Import {
        #[command(flatten)]
        config: CacheConfig,

        /// The tar, or the directory, of the layout; `-` for standard input
        #[arg(value_name = "LAYOUT")]
        layout: PathBuf,

        /// What an image is called that has no name in the layout
        #[arg(long, value_name = "REPOSITORY:TAG")]
        name: Option<String>,

        /// Never evict them
        #[arg(long)]
        pin: bool,
    },
    /// Print what a runtime has to be told to use the cache
    MirrorConfig {
        /// The runtime
        runtime: RuntimeName,

        /// The registries that CRI-O is to ask the cache for [default: docker.io]
        #[arg(value_name = "HOST")]
        hosts: Vec<String>,

        /// Where the cache answers
        #[arg(long, value_name = "ADDRESS", default_value = "localhost:7439")]
        address: String,
    },
}

/// Names the config file; `-f` is a manifest elsewhere, and so is not taken here.
#[derive(Debug, Args)]
pub(crate) struct CacheConfig {
    /// The config file [default: /etc/image-cri-shim.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Images by their names.
#[derive(Debug, Args)]
pub(crate) struct Named {
    #[command(flatten)]
    config: CacheConfig,

    /// NAME, NAME@DIGEST or DIGEST
    #[arg(required = true, value_name = "IMAGE")]
    pub(super) images: Vec<String>,
}

/// A runtime that can use the cache as its mirror.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RuntimeName {
    /// hosts.toml
    Containerd,
    /// registries.conf
    Crio,
}

impl CacheCommand {
    /// The config file that stands after the command's name.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        let config = match self {
            Self::Status { config, .. }
            | Self::Warm { config, .. }
            | Self::Ls { config, .. }
            | Self::Verify { config, .. }
            | Self::Gc { config, .. }
            | Self::Export { config, .. }
            | Self::Import { config, .. } => config,
            Self::Rm(named) | Self::Pin(named) | Self::Unpin(named) => &named.config,
            Self::MirrorConfig { .. } => return None,
        };
        config.file.as_ref()
    }
}
