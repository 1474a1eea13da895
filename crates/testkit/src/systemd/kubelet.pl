#!/usr/bin/perl
use IO::Socket::UNIX;
my $path = "/run/containerd/containerd.sock";
for (@ARGV) { $path = $1 if m{^--image-service-endpoint=unix://(.*)}; }
while (1) {
    my $socket = IO::Socket::UNIX->new(Peer => $path);
    if ($socket) {
        $socket->autoflush(1);
        print $socket "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
        1 while sysread($socket, my $bytes, 4096);
    }
    select(undef, undef, undef, 0.05);
}
