//! Links over real sockets on the loopback. Nothing here depends on a deadline that a slow machine misses: what must come is
//! waited for, and what must not come is followed by something that must.

mod encryption;

use super::hello::{Greeting, Word, hear, say};
use super::*;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// What a server was told.
#[derive(Debug)]
enum Told {
    Linked(Hello),
    Unlinked(u64),
    Message(Hello, Bytes),
    Snapshot(Hello, SnapshotStream),
}

/// The server room, which writes down what it is told.
struct Room {
    hello: Mutex<Hello>,
    /// Servers that are no members.
    unknown: Vec<u64>,
    told: mpsc::UnboundedSender<Told>,
    /// How often it was told that nobody listens. Beside the rest, because it depends on when a dialler tries.
    gone: AtomicU64,
}

impl Room {
    fn tell(&self, told: Told) {
        // A test that has ended does not listen any more.
        let _ = self.told.send(told);
    }
}

impl Reception for Room {
    fn hello(&self) -> Hello {
        *self.hello.lock()
    }

    fn admit(&self, peer: &Hello) -> Result<(), Refusal> {
        if self.unknown.contains(&peer.server) {
            let text = format!("server {} is no member", peer.server);
            return Err(Refusal::new(RefusalCode::UnknownServer, text));
        }
        Ok(())
    }

    fn linked(&self, peer: &Hello) {
        self.tell(Told::Linked(*peer));
    }

    fn unlinked(&self, server: u64) {
        self.tell(Told::Unlinked(server));
    }

    fn gone(&self, _server: u64) {
        self.gone.fetch_add(1, Relaxed);
    }

    fn messages(&self, peer: &Hello, bodies: Vec<Bytes>) {
        bodies
            .into_iter()
            .for_each(|body| self.tell(Told::Message(*peer, body)));
    }

    fn snapshot(&self, peer: Hello, stream: SnapshotStream) {
        self.tell(Told::Snapshot(peer, stream));
    }
}

/// One server's end of the links.
struct Server {
    links: Links,
    room: Arc<Room>,
    told: mpsc::UnboundedReceiver<Told>,
    address: SocketAddr,
}

fn hello_of(server: u64) -> Hello {
    Hello {
        cluster_id: 77,
        server,
        incarnation: 1000 + server,
        boot: 5,
    }
}

/// Quick to try again; and what is closed is not closed because it was silent.
fn quick() -> LinkOptions {
    LinkOptions {
        hello_limit: 2 * LIMIT,
        silence_limit: 2 * LIMIT,
        max_pause: Duration::from_millis(100),
        sign_of_life_interval: Duration::from_millis(50),
        ..LinkOptions::default()
    }
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn start_with(hello: Hello, address: SocketAddr, unknown: &[u64], options: LinkOptions) -> Server {
    let listener = crate::net::listen(address, 0, "server.N").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    let room = Arc::new(Room {
        hello: Mutex::new(hello),
        unknown: unknown.to_vec(),
        told: tell,
        gone: AtomicU64::new(0),
    });
    let links = Links::start(room.clone(), vec![listener], options);
    Server {
        links,
        room,
        told,
        address,
    }
}

fn start(server: u64) -> Server {
    start_with(hello_of(server), any_port(), &[], quick())
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it did not happen")
}

impl Server {
    /// Lets it call those servers.
    fn call(&self, others: &[(u64, SocketAddr)]) {
        let others = others.iter();
        self.call_hosts(others.map(|(server, address)| (*server, address.ip().to_string(), address.port())));
    }

    /// The same, with names.
    fn call_hosts(&self, others: impl IntoIterator<Item = (u64, impl Into<String>, u16)>) {
        let others = others.into_iter().map(|(server, host, port)| {
            let host = host.into();
            (server, vec![PeerAddress { host, port }])
        });
        self.links.set_peers(&others.collect());
    }

    async fn next(&mut self) -> Told {
        within(self.told.recv()).await.unwrap()
    }

    async fn linked(&mut self, server: u64) -> Hello {
        match self.next().await {
            Told::Linked(hello) if hello.server == server => hello,
            other => panic!("not linked to {server}: {other:?}"),
        }
    }

    async fn unlinked(&mut self, server: u64) {
        match self.next().await {
            Told::Unlinked(found) if found == server => {}
            other => panic!("not unlinked from {server}: {other:?}"),
        }
    }

    async fn message(&mut self) -> (u64, Bytes) {
        loop {
            match self.next().await {
                Told::Message(hello, body) => return (hello.server, body),
                Told::Linked(_) | Told::Unlinked(_) => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    async fn send_when_linked(&self, server: u64, body: &'static str) {
        let sent = async {
            while self.send(server, body).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(sent).await;
    }

    fn send(&self, server: u64, body: impl Into<Bytes>) -> Result<(), Dropped> {
        self.links.send(server, body.into())
    }
}

/// Somebody who does the dialler's part of the hellos by hand.
async fn greet(address: SocketAddr, hello: Hello, addressee: u64) -> io::Result<(TcpStream, Word)> {
    let mut stream = TcpStream::connect(address).await?;
    let greeting = Greeting {
        protocol_version: PROTOCOL_VERSION,
        hello,
        addressee,
        purpose: Purpose::Messages,
    };
    say(&mut stream, &Word::Hello(greeting)).await?;
    let answer = hear(&mut stream).await.map_err(io::Error::other)?;
    Ok((stream, answer))
}

/// The same, until frames can be sent, and `first` has been.
async fn link_by_hand_with(server: &Server, hello: Hello, first: &[u8]) -> TcpStream {
    let ours = server.room.hello().server;
    let (mut stream, answer) = within(greet(server.address, hello, ours)).await.unwrap();
    assert!(matches!(answer, Word::Hello(_)), "{answer:?}");
    let mut bytes = Vec::new();
    say(&mut bytes, &Word::Agreed).await.unwrap();
    bytes.extend(first);
    stream.write_all(&bytes).await.unwrap();
    stream
}

async fn link_by_hand(server: &Server, hello: Hello) -> TcpStream {
    link_by_hand_with(server, hello, b"").await
}

fn frame_of(body: &[u8]) -> Vec<u8> {
    [&frame::header(body)[..], body].concat()
}

async fn refusal(server: &Server, hello: Hello, addressee: u64) -> RefusalCode {
    match within(greet(server.address, hello, addressee)).await.unwrap() {
        (_, Word::Refusal(refusal)) => refusal.code,
        (_, other) => panic!("not refused: {other:?}"),
    }
}

/// The other side closes, in whatever way.
async fn is_closed(stream: &mut TcpStream) {
    match within(stream.read(&mut [0])).await {
        Ok(0) | Err(_) => {}
        Ok(_) => panic!("it talks"),
    }
}

#[tokio::test]
async fn messages_arrive_in_order_in_both_directions() {
    let (mut one, mut two) = (start(1), start(2));
    one.call(&[(2, two.address)]);
    two.call(&[(1, one.address)]);
    assert_eq!(one.linked(2).await, hello_of(2));
    assert_eq!(two.linked(1).await, hello_of(1));
    let body = |number: u32| {
        let mut body = number.to_be_bytes().to_vec();
        // Small ones, and some that are longer than a read and a socket's buffer.
        body.resize(
            if number.is_multiple_of(100) {
                3 << 20
            } else {
                4 + number as usize
            },
            7,
        );
        Bytes::from(body)
    };
    for number in 0..300 {
        one.send(2, body(number)).unwrap();
        two.send(1, body(number)).unwrap();
    }
    for number in 0..300 {
        assert!(one.message().await == (2, body(number)));
        assert!(two.message().await == (1, body(number)));
    }
    let views = one.links.views();
    assert_eq!((views.len(), views[0].server, views[0].is_up), (1, 2, true));
    assert_eq!(views[0].dropped_messages, 0);
}

/// Whoever has messages sends them, or leaves them to who is sending: none is forgotten, doubled or overtaken by a later one of
/// the same thread. Each round is waited for without anything else being sent that could push its last message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_threads_send_on_one_link_and_nothing_is_forgotten() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 3_000;
    /// Of each thread in a round.
    const MESSAGES: u32 = 3;
    let options = LinkOptions {
        sign_of_life_interval: 2 * LIMIT,
        ..quick()
    };
    let one = start_with(hello_of(1), any_port(), &[], options);
    let mut two = start(2);
    one.call(&[(2, two.address)]);
    one.send_when_linked(2, "first").await;
    assert_eq!(two.message().await.1, "first");
    let links = Arc::new(one.links);
    let begin = Arc::new(std::sync::Barrier::new(THREADS as usize + 1));
    for thread in 0..THREADS {
        let (links, begin) = (links.clone(), begin.clone());
        std::thread::spawn(move || {
            for number in 0..ROUNDS * MESSAGES {
                if number % MESSAGES == 0 {
                    begin.wait();
                }
                // Now and then more than others than the link's task send.
                let length = if number % 500 == 0 { 100 << 10 } else { number % 300 };
                let mut body = [thread.to_be_bytes(), number.to_be_bytes()].concat();
                body.resize(8 + length as usize, 7);
                // The first stands in line until the same thread's next.
                let put = if number % MESSAGES == 0 {
                    Links::put
                } else {
                    Links::send
                };
                put(&links, 2, body.into()).unwrap();
            }
        });
    }
    let mut next = [0; THREADS as usize];
    for _ in 0..ROUNDS {
        begin.wait();
        for _ in 0..THREADS * MESSAGES {
            let (_, body) = two.message().await;
            let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            let expected = &mut next[word(0) as usize];
            assert_eq!(word(4), *expected, "of thread {}", word(0));
            *expected += 1;
        }
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_linked_again() {
    // An address that no other test uses: nobody takes the port in between.
    let two = start_with(hello_of(2), ([127, 0, 0, 77], 0).into(), &[], quick());
    // No sign of life is due: that the other side has closed is noticed without writing.
    let options = LinkOptions {
        sign_of_life_interval: 2 * LIMIT,
        ..quick()
    };
    let mut one = start_with(hello_of(1), any_port(), &[], options);
    one.call(&[(2, two.address)]);
    one.linked(2).await;
    let address = two.address;
    two.links.shutdown().await;
    one.unlinked(2).await;
    assert_eq!(one.send(2, "lost"), Err(Dropped::Down));
    let reborn = Hello { boot: 6, ..hello_of(2) };
    let mut two = start_with(reborn, address, &[], quick());
    assert_eq!(one.linked(2).await.boot, 6);
    one.send(2, "again").unwrap();
    assert_eq!(two.message().await, (1, "again".into()));
    assert_eq!(one.links.views()[0].dropped_messages, 1);
}

#[tokio::test]
async fn a_server_that_is_back_and_calls_is_called_without_a_pause() {
    // An address that no other test uses: nobody takes the port in between.
    let address = {
        let probe = start_with(hello_of(2), ([127, 0, 0, 78], 0).into(), &[], quick());
        probe.links.shutdown().await;
        probe.address
    };
    let options = LinkOptions {
        first_pause: 10 * LIMIT,
        max_pause: 10 * LIMIT,
        ..quick()
    };
    let mut one = start_with(hello_of(1), any_port(), &[], options);
    one.call(&[(2, address)]);
    let is_down = async {
        while one.room.gone.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(is_down).await;
    let two = start_with(hello_of(2), address, &[], quick());
    two.call(&[(1, one.address)]);
    one.linked(2).await;
}

#[tokio::test]
async fn who_is_called_at_another_address_is_dialled_anew() {
    let (mut one, mut old, mut new) = (start(1), start(2), start(2));
    one.call(&[(2, old.address)]);
    one.linked(2).await;
    one.send(2, "old").unwrap();
    assert_eq!(old.message().await.1, "old");
    one.call(&[(2, new.address)]);
    one.unlinked(2).await;
    one.linked(2).await;
    one.send(2, "new").unwrap();
    assert_eq!(new.message().await.1, "new");
    // The same address again changes nothing.
    one.call(&[(2, new.address)]);
    one.send(2, "still").unwrap();
    assert_eq!(new.message().await.1, "still");
    one.call(&[]);
    one.unlinked(2).await;
    assert_eq!(one.send(2, "gone"), Err(Dropped::Down));
    assert!(one.links.views().is_empty());
    one.call(&[(2, new.address), (1, one.address)]);
    one.linked(2).await;
    assert_eq!(one.send(1, "to myself"), Err(Dropped::Unknown));
}

#[tokio::test]
async fn all_addresses_are_tried_and_names_are_resolved() {
    let (mut one, two) = (start(1), start(2));
    let unused = TcpListener::bind(any_port()).await.unwrap();
    let nobody = unused.local_addr().unwrap().port();
    drop(unused);
    let address = |host: &str, port| PeerAddress {
        host: host.to_owned(),
        port,
    };
    let addresses = vec![
        address("127.0.0.1", nobody),
        address("no-such-host.invalid", 2888),
        address("localhost", two.address.port()),
    ];
    one.links.set_peers(&BTreeMap::from([(2, addresses)]));
    one.linked(2).await;
}

#[tokio::test]
async fn a_server_is_gone_if_nobody_listens_at_any_of_its_addresses() {
    // Bound, and not listening: the kernel refuses, and gives the port to nobody else.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind(any_port()).unwrap();
    let nobody = (
        PeerAddress::new("127.0.0.1", nobody.local_addr().unwrap().port()),
        nobody,
    );
    let options = LinkOptions {
        hello_limit: Duration::from_millis(50),
        ..quick()
    };
    let one = start_with(hello_of(1), any_port(), &[], options);
    // Somebody listens at the other address, though he says nothing.
    let mute = TcpListener::bind(any_port()).await.unwrap();
    let silent = PeerAddress::new("127.0.0.1", mute.local_addr().unwrap().port());
    one.links
        .set_peers(&BTreeMap::from([(2, vec![nobody.0.clone(), silent, nobody.0.clone()])]));
    for _ in 0..3 {
        within(mute.accept()).await.unwrap();
    }
    assert_eq!(one.room.gone.load(Relaxed), 0);
    one.links.set_peers(&BTreeMap::from([(2, vec![nobody.0.clone()])]));
    let told = async {
        while one.room.gone.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(told).await;
}

#[tokio::test]
async fn hellos_that_do_not_fit_are_refused_with_the_reason() {
    let server = start_with(hello_of(1), any_port(), &[4], quick());
    let with = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello_of(2);
        change(&mut hello);
        hello
    };
    assert_eq!(refusal(&server, hello_of(2), 3).await, RefusalCode::WrongServer);
    assert_eq!(refusal(&server, hello_of(1), 1).await, RefusalCode::Oneself);
    assert_eq!(refusal(&server, hello_of(4), 1).await, RefusalCode::UnknownServer);
    assert_eq!(
        refusal(&server, with(&|hello| hello.cluster_id = 1), 1).await,
        RefusalCode::Cluster
    );
    // The first member that learns the ensemble's number is welcome at those who know none.
    server.room.hello.lock().cluster_id = 0;
    let _stream = link_by_hand(&server, with(&|hello| hello.cluster_id = 1)).await;
}

#[tokio::test]
async fn the_dialler_learns_why_it_is_refused() {
    let (one, two) = (start(1), start_with(hello_of(2), any_port(), &[1], quick()));
    one.call(&[(2, two.address), (3, two.address)]);
    let code = async |server| match one.links.connect_snapshot(server).await {
        Err(DialError::Hello(_, HelloError::RefusedByPeer(refusal))) => refusal.code,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(code(2).await, RefusalCode::UnknownServer);
    assert_eq!(code(3).await, RefusalCode::WrongServer);
    assert!(matches!(one.links.connect_snapshot(9).await, Err(DialError::NoAddress)));
}

#[tokio::test]
async fn the_acceptor_is_refused_where_the_dialler_does_not_want_it() {
    let (one, mut two) = (start_with(hello_of(1), any_port(), &[2], quick()), start(2));
    one.call(&[(2, two.address)]);
    let error = one.links.connect_snapshot(2).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Hello(_, HelloError::Refused(refusal)) if refusal.code == RefusalCode::UnknownServer),
        "{error}"
    );
    // Nothing of it was taken for a connection.
    let mut other = link_by_hand(&two, hello_of(3)).await;
    other.write_all(&frame_of(b"first")).await.unwrap();
    assert_eq!(two.message().await, (3, "first".into()));
}

#[tokio::test]
async fn a_newer_connection_replaces_the_one_before() {
    let mut server = start(1);
    let mut old = link_by_hand(&server, hello_of(2)).await;
    old.write_all(&frame_of(b"old")).await.unwrap();
    assert_eq!(server.message().await, (2, "old".into()));
    let mut new = link_by_hand(&server, hello_of(2)).await;
    is_closed(&mut old).await;
    new.write_all(&frame_of(b"new")).await.unwrap();
    assert_eq!(server.message().await, (2, "new".into()));
    // Other servers' connections are none of its business.
    let mut other = link_by_hand(&server, hello_of(3)).await;
    other.write_all(&frame_of(b"other")).await.unwrap();
    assert_eq!(server.message().await, (3, "other".into()));
    new.write_all(&frame_of(b"new still")).await.unwrap();
    assert_eq!(server.message().await, (2, "new still".into()));
}

#[tokio::test]
async fn a_connection_of_an_older_boot_is_refused() {
    let server = start(1);
    let at = |incarnation, boot| Hello {
        incarnation,
        boot,
        ..hello_of(2)
    };
    let stream = link_by_hand(&server, at(20, 5)).await;
    assert_eq!(refusal(&server, at(20, 4), 1).await, RefusalCode::OlderBoot);
    drop(stream);
    assert_eq!(refusal(&server, at(20, 4), 1).await, RefusalCode::OlderBoot);
    // The boots of another life of its directory are counted from the beginning.
    let _stream = link_by_hand(&server, at(21, 1)).await;
    let _stream = link_by_hand(&server, at(21, 2)).await;
}

#[tokio::test]
async fn a_damaged_frame_closes_the_link_behind_what_was_whole() {
    let mut server = start(1);
    let mut stream = link_by_hand(&server, hello_of(2)).await;
    let mut bytes = frame_of(b"whole");
    let mut damaged = frame_of(b"damaged");
    *damaged.last_mut().unwrap() ^= 1;
    bytes.extend(damaged);
    bytes.extend(frame_of(b"behind it"));
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(server.message().await.1, "whole");
    is_closed(&mut stream).await;
    let mut stream = link_by_hand(&server, hello_of(2)).await;
    stream.write_all(&frame_of(b"again")).await.unwrap();
    assert_eq!(server.message().await.1, "again");
}

#[tokio::test]
async fn a_frame_of_an_absurd_length_closes_the_link() {
    let server = start(1);
    let mut stream = link_by_hand(&server, hello_of(2)).await;
    stream.write_all(&[0xff; 8]).await.unwrap();
    is_closed(&mut stream).await;
}

#[tokio::test]
async fn who_says_something_else_is_shown_the_door() {
    let server = start(1);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"ruok", b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        is_closed(&mut stream).await;
    }
}

#[tokio::test]
async fn who_says_nothing_is_given_up_in_time() {
    let options = LinkOptions {
        hello_limit: Duration::from_millis(50),
        silence_limit: Duration::from_millis(50),
        ..quick()
    };
    let server = start_with(hello_of(1), any_port(), &[], options.clone());
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    is_closed(&mut silent).await;
    // One who takes the connection, and never says who he is.
    let mute = TcpListener::bind(any_port()).await.unwrap();
    server.call(&[(2, mute.local_addr().unwrap())]);
    let error = server.links.connect_snapshot(2).await.unwrap_err();
    assert!(matches!(error, DialError::Hello(_, HelloError::TooLate)), "{error}");
}

#[tokio::test]
async fn a_link_that_falls_silent_is_closed_by_the_acceptor() {
    let options = LinkOptions {
        silence_limit: Duration::from_millis(300),
        ..quick()
    };
    let mut server = start_with(hello_of(1), any_port(), &[], options);
    let mut stream = link_by_hand_with(&server, hello_of(2), &frame_of(b"last words")).await;
    assert_eq!(server.message().await.1, "last words");
    is_closed(&mut stream).await;
}

#[tokio::test]
async fn an_idle_link_stays_up_by_its_signs_of_life() {
    let (mut one, mut two, mut three) = (start(1), start(2), start(3));
    one.call(&[(2, two.address)]);
    one.linked(2).await;
    // By hand, to see the bytes: frames without a body, and nothing else.
    let mut stream = mute_acceptor(&mut three, 4).await;
    for _ in 0..3 {
        let mut sign = [9; 8];
        within(stream.read_exact(&mut sign)).await.unwrap();
        assert_eq!(sign[..], frame_of(b"")[..]);
    }
    // They are no messages.
    one.send(2, "message").unwrap();
    assert_eq!(two.message().await.1, "message");
    assert!(two.told.try_recv().is_err());
    // An acceptor that talks is none of ours.
    stream.write_all(b"x").await.unwrap();
    three.unlinked(4).await;
}

#[tokio::test]
async fn what_a_stuck_peer_does_not_take_is_dropped_and_said() {
    let options = LinkOptions {
        waiting_bytes: 1 << 20,
        ..quick()
    };
    let mut one = start_with(hello_of(1), any_port(), &[], options);
    let stream = mute_acceptor(&mut one, 2).await;
    // It reads no more: the socket's buffers fill, then the queue.
    let body = Bytes::from(vec![1; 64 << 10]);
    let full = async {
        let mut sent = 0_u64;
        loop {
            match one.send(2, body.clone()) {
                Ok(()) => sent += 1,
                Err(error) => return (sent, error),
            }
            tokio::task::yield_now().await;
        }
    };
    let (sent, error) = within(full).await;
    assert_eq!(error, Dropped::Full);
    assert!(sent >= 16, "{sent}");
    let view = one.links.views()[0];
    assert!(view.waiting_bytes <= 1 << 20, "{view:?}");
    assert_eq!(view.dropped_messages, 1);
    // When the link breaks, what waits is dropped, and counted.
    drop(stream);
    one.unlinked(2).await;
    let view = one.links.views()[0];
    assert_eq!((view.waiting_messages, view.is_up), (0, false));
    assert!(view.dropped_messages > 1, "{view:?}");
}

/// A server that says its hellos by hand, and then nothing: the link to it.
async fn mute_acceptor(one: &mut Server, server: u64) -> TcpStream {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    one.call(&[(server, listener.local_addr().unwrap())]);
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let Word::Hello(greeting) = within(hear(&mut stream)).await.unwrap() else {
        panic!("no hello");
    };
    let answer = Greeting {
        hello: hello_of(server),
        ..greeting
    };
    say(&mut stream, &Word::Hello(answer)).await.unwrap();
    assert_eq!(within(hear(&mut stream)).await.unwrap(), Word::Agreed);
    one.linked(server).await;
    stream
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_peer_whose_kernel_takes_nothing_more_is_given_up() {
    let options = LinkOptions {
        dead_after: Duration::from_millis(100),
        ..quick()
    };
    let mut one = start_with(hello_of(1), any_port(), &[], options);
    let stream = mute_acceptor(&mut one, 2).await;
    // More than any socket's buffers hold; nobody closes anything.
    for _ in 0..60 {
        // On a slow machine it may be over before the last one.
        if one.send(2, vec![1; 1 << 20]).is_err() {
            break;
        }
    }
    one.unlinked(2).await;
    drop(stream);
}

#[tokio::test]
async fn a_snapshot_has_a_stream_of_its_own() {
    let (one, mut two) = (start(1), start(2));
    one.call(&[(2, two.address)]);
    let mut dialled = within(one.links.connect_snapshot(2)).await.unwrap();
    assert_eq!(dialled.peer, hello_of(2));
    let (peer, mut stream) = loop {
        if let Told::Snapshot(peer, stream) = two.next().await {
            break (peer, stream);
        }
    };
    assert_eq!(peer, hello_of(1));
    dialled.stream.write_all(b"chunk").await.unwrap();
    dialled.stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"chunk");
    stream.write_all(b"done").await.unwrap();
    let mut answer = [0; 4];
    within(dialled.stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"done");
}

#[tokio::test]
async fn a_shutdown_sends_what_waits_and_leaves_no_task() {
    let (mut one, mut two) = (start(1), start(2));
    one.call(&[(2, two.address)]);
    two.call(&[(1, one.address)]);
    one.linked(2).await;
    for number in 0..100_u32 {
        one.send(2, number.to_be_bytes().to_vec()).unwrap();
    }
    within(one.links.shutdown()).await;
    for number in 0..100_u32 {
        assert_eq!(two.message().await.1, number.to_be_bytes().to_vec());
    }
    assert!(TcpStream::connect(one.address).await.is_err(), "it still listens");
    assert!(one.links.connect_snapshot(2).await.is_err());
    assert_eq!(Arc::strong_count(&one.links.context), 1, "a task still holds it");
    within(one.links.shutdown()).await;
}

#[tokio::test]
async fn messages_can_be_sent_from_a_thread_outside_of_the_runtime() {
    let (mut one, mut two) = (start(1), start(2));
    let address = two.address;
    std::thread::scope(|scope| {
        scope.spawn(|| one.call(&[(2, address)]));
    });
    one.linked(2).await;
    std::thread::scope(|scope| {
        scope.spawn(|| one.send(2, "from a thread").unwrap());
    });
    assert_eq!(two.message().await.1, "from a thread");
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let server = start(1);
    let mut waiting = Vec::new();
    for _ in 0..200 {
        waiting.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut closed = 0;
    // Those beyond the limit are closed, in the order in which they came.
    for stream in waiting.iter_mut().skip(64) {
        is_closed(stream).await;
        closed += 1;
    }
    assert_eq!(closed, 136);
    waiting.clear();
    let last = async {
        loop {
            if let Ok((_, Word::Hello(_))) = greet(server.address, hello_of(2), 1).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(last).await;
}

#[test]
fn addresses_are_shown_as_they_are_written() {
    for (host, shown) in [
        ("zoo1", "zoo1:1"),
        ("::1", "[::1]:1"),
        ("[::1]", "[::1]:1"),
        ("10.0.0.1", "10.0.0.1:1"),
    ] {
        assert_eq!(PeerAddress::new(host, 1).to_string(), shown);
    }
    assert_eq!(PeerAddress::new("[::1]", 1).host, "::1");
}
