#!/usr/bin/perl
# A client that says hello as kubelet's does, answers PING, and goes when it is asked to.
use IO::Socket::UNIX;
my $path = "/run/containerd/containerd.sock";
for (@ARGV) { $path = $1 if m{^--image-service-endpoint=unix://(.*)}; }
my ($ping, $goaway) = (6, 7);
while (1) {
    my $socket = IO::Socket::UNIX->new(Peer => $path);
    if ($socket) {
        $socket->autoflush(1);
        print $socket "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
        my $bytes = "";
        READ: while (sysread($socket, $bytes, 4096, length $bytes)) {
            while (length $bytes >= 9) {
                my ($high, $low, $type, $flags) = unpack "CnCC", $bytes;
                my $length = 9 + ($high << 16) + $low;
                last if length $bytes < $length;
                my $frame = substr $bytes, 0, $length, "";
                last READ if $type == $goaway;
                print $socket pack("CnCCN", 0, 8, $ping, 1, 0) . substr($frame, 9)
                    if $type == $ping && !($flags & 1);
            }
        }
        close $socket;
    }
    select(undef, undef, undef, 0.05);
}
