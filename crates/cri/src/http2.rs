//! Every HTTP/2 tuning value of the shim, in one place.

/// HTTP/2 settings of both sides: towards the clients (kubelet, crictl) and towards the runtime.
///
/// Both peers are on this machine and are trusted to the extent that file permissions on the
/// sockets say so. The limits are there so that a broken peer can't take all memory, not to ward
/// off strangers; where the `h2` crate's defaults guard a public server, they are raised.
#[derive(Debug, Clone, Copy)]
pub struct Http2Tuning {
    /// Bytes one stream may send before its reader has taken them: 1 MiB. The protocol's 64 KiB
    /// would cost a window update, and a round trip, for every 64 KiB of a long ListImages answer.
    pub stream_window: u32,
    /// Bytes that all streams of one connection may have unread: 8 MiB. Above the stream's window, so
    /// that a slow reader of one call does not stall the client's others. Each client has its own
    /// connection to the runtime, so that it never stalls another client. A promise, not memory that
    /// is set aside.
    pub connection_window: u32,
    /// The connection window of a client that finds many others connected: 1 MiB, one stream's.
    pub least_connection_window: u32,
    /// What all connection windows, both ways, come out of: 256 MiB. Beyond it a client still gets the
    /// least: being served does not depend on what others hold.
    pub all_connection_windows: u32,
    /// Bytes of answers that wait in memory per stream while the client does not read its socket:
    /// 64 KiB.
    pub send_buffer: usize,
    /// Largest frame we accept: 64 KiB. A 20 MiB message then comes in 320 frames, not 1280; larger
    /// frames only delay the small calls behind them.
    pub max_frame_size: u32,
    /// Concurrent calls per client connection: 2048. `h2`'s callers often set 200, which a
    /// node that starts 110 pods at once, each with several containers, does reach; grpc-go, which
    /// the shim stands in for, sets none, and its clients wait where there is a limit.
    pub max_concurrent_streams: u32,
    /// Size of all headers of one request or answer: 256 KiB. `h2` takes 16 KiB, grpc-go 16 MiB;
    /// status details of a failed pull that quote a registry's answer pass 16 KiB.
    pub max_header_list: u32,
    /// Streams that we reset and still remember, to ignore what the peer sent before it knew: 1024.
    /// `h2` keeps 50, fewer than the calls that are cancelled when a kubelet dies.
    pub remembered_resets: usize,
    /// Requests that a client may cancel before we took them from the queue: 4096. `h2`
    /// closes the connection at 20 (rapid reset), which a cancelled burst of pulls can reach.
    pub cancelled_before_accept: usize,
    /// Overhead of small DATA frames that may wait unread, in bytes as `h2` counts them (256 less
    /// the frame's length, each): 64 MiB. `h2` closes the whole connection at its limit, so that
    /// one event stream with a reader that sleeps would end every call to the runtime.
    pub small_frame_budget: usize,
}

impl Http2Tuning {
    /// The values that the shim runs with.
    pub const SHIM: Self = Self {
        stream_window: 1 << 20,
        connection_window: 8 << 20,
        least_connection_window: 1 << 20,
        all_connection_windows: 256 << 20,
        send_buffer: 64 << 10,
        max_frame_size: 64 << 10,
        max_concurrent_streams: 2048,
        max_header_list: 256 << 10,
        remembered_resets: 1024,
        cancelled_before_accept: 4096,
        small_frame_budget: 64 << 20,
    };

    /// The builder for a connection that a client opened, with the client's own connection window.
    pub fn server(&self, connection_window: u32) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(connection_window)
            .max_send_buffer_size(self.send_buffer)
            .max_frame_size(self.max_frame_size)
            .max_concurrent_streams(self.max_concurrent_streams)
            .max_header_list_size(self.max_header_list)
            .max_concurrent_reset_streams(self.remembered_resets)
            .max_pending_accept_reset_streams(self.cancelled_before_accept)
            // Counts over the life of a connection, and kubelet keeps one for months.
            .max_local_error_reset_streams(None)
            .data_frame_budget(self.small_frame_budget);
        builder
    }

    /// The builder for a connection to the runtime, with this connection window.
    pub fn client(&self, connection_window: u32) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(connection_window)
            .max_send_buffer_size(self.send_buffer)
            .max_frame_size(self.max_frame_size)
            .max_header_list_size(self.max_header_list)
            .max_concurrent_reset_streams(self.remembered_resets)
            .max_local_error_reset_streams(None)
            .data_frame_budget(self.small_frame_budget)
            .enable_push(false);
        builder
    }
}
