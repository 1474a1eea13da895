//! How much is measured.

/// Numbers and bytes of every part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes of the layer that is a hit.
    pub(super) hit: usize,
    /// Downloads of it by one client, each turn.
    pub(super) hits_alone: usize,
    /// Clients that download it at once, each once, each turn.
    pub(super) clients: usize,
    /// Requests for a small blob.
    pub(super) small_hits: usize,
    /// Bytes of each layer that is a miss. Above `parallelAbove`, so that the cache fetches it in ranges.
    pub(super) miss: usize,
    /// Layers that are missed.
    pub(super) misses: usize,
    /// Bytes of the one layer of an image that is pulled over the slow link.
    pub(super) cold: usize,
    /// Cold pulls by each way.
    pub(super) cold_turns: usize,
    /// Images in the large store.
    pub(super) images: usize,
    /// Starts on the large store.
    pub(super) starts: usize,
}

impl Sizes {
    /// What is compared with the goals. More than 10 GiB pass through the cache.
    pub(super) const FULL: Self = Self {
        hit: 256 << 20,
        hits_alone: 4,
        clients: 32,
        small_hits: 200,
        miss: 64 << 20,
        misses: 8,
        cold: 160 << 20,
        cold_turns: 3,
        images: 10_000,
        starts: 5,
    };

    /// Shows that the bench works, in a minute and with a debug build. Its numbers mean nothing.
    pub(super) const SMOKE: Self = Self {
        hit: 8 << 20,
        hits_alone: 1,
        clients: 8,
        small_hits: 20,
        miss: 40 << 20,
        misses: 1,
        cold: 4 << 20,
        cold_turns: 1,
        images: 100,
        starts: 1,
    };
}
