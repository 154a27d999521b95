//! What the kernels of machines from one template draw for themselves: seen from within, since nothing else of them shows it.

use banger_integration::Banger;

/// For each of three ports twice: the sequence number of a connection from it to another that nobody listens at, and the
/// clock before and after in 64 ns, as `secure_tcp_seq` of the kernel adds it to what it draws.
const CONNECT: &str = r#"use Socket;
sub now { my $t = pack 'qq', 0, 0; syscall 228, 0, $t; my ($s, $n) = unpack 'qq', $t; ($s * 1_000_000_000 + $n) >> 6 }
socket(my $wire, 17, 3, 8) or die "no packet socket: $!";
for my $port (4001 .. 4003) { for (1, 2) {
    socket(my $tcp, AF_INET, SOCK_STREAM, 6) or die $!;
    setsockopt $tcp, SOL_SOCKET, SO_REUSEADDR, 1;
    bind $tcp, pack_sockaddr_in($port, INADDR_LOOPBACK) or die $!;
    my $before = now();
    connect $tcp, pack_sockaddr_in(4000, INADDR_LOOPBACK) and die 'somebody listens';
    my $after = now();
    while (1) {
        recv $wire, my $frame, 2048, 0;
        my $ip = substr $frame, 14;
        next if 6 != ord substr $ip, 9, 1;
        my ($from, $to, $sequence) = unpack 'nnN', substr $ip, 4 * (15 & ord $ip);
        next if $from != $port || $to != 4000;
        print "$sequence $before $after\n";
        last;
    }
} }"#;

/// What a kernel adds the clock to, as far as two looks at the clock tell: so much at least, and how much more at most.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    least: u32,
    more: u32,
}

impl Drawn {
    fn of(line: &str) -> Self {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [sequence, before, after] = numbers[..] else { panic!("{line}") };
        let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap();
        Drawn { least: low(sequence).wrapping_sub(low(after)), more: u32::try_from(after - before).unwrap() }
    }

    fn may_be(self, other: Drawn) -> bool {
        other.least.wrapping_sub(self.least) <= self.more || self.least.wrapping_sub(other.least) <= other.more
    }
}

/// TCP's initial sequence numbers (RFC 6528) of no machine follow from another's.
pub(crate) fn number_their_bytes_alike_in_nothing(banger: &Banger, names: &[&str]) {
    let drawn: Vec<Vec<Drawn>> = names
        .iter()
        .map(|name| {
            let said = banger.ok(["vm", "exec", name, "--", "perl", "-e", CONNECT]);
            let all: Vec<Drawn> = said.lines().map(Drawn::of).collect();
            assert_eq!(all.len(), 6, "{said}");
            assert!(all.chunks(2).all(|twice| twice[0].may_be(twice[1])), "it shows what a kernel draws once: {all:?}");
            all.into_iter().step_by(2).collect()
        })
        .collect();
    for (n, one) in drawn.iter().enumerate() {
        for (other, name) in drawn[..n].iter().zip(names) {
            let alike = one.iter().zip(other).all(|(one, other)| one.may_be(*other));
            assert!(!alike, "{} numbers its bytes as {name} does: {one:?}", names[n]);
        }
    }
}
