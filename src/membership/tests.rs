//! The grammar from outside: every case of `server.N`, and of what reconfig may say, as Apache ZooKeeper 3.9.5 answered it.

use super::*;
use proptest::prelude::*;

#[test]
fn server_lines_take_every_form_of_the_manual() {
    let cases = [
        ("zoo1:2888:3888", "zoo1:2888:3888:participant"),
        ("zoo1:2888:3888:observer", "zoo1:2888:3888:observer"),
        (
            "zoo1:2888:3888:PARTICIPANT;2181",
            "zoo1:2888:3888:participant;0.0.0.0:2181",
        ),
        (
            "10.0.0.1:2888:3888;10.0.0.2:2181",
            "10.0.0.1:2888:3888:participant;10.0.0.2:2181",
        ),
        (
            "[2001:db8::1]:2888:3888;[::1]:2181",
            "[2001:db8::1]:2888:3888:participant;[::1]:2181",
        ),
        ("a:1:2|b:3:4:observer", "a:1:2|b:3:4:observer"),
        (" a:1:2 ; 5 ", "a:1:2:participant;0.0.0.0:5"),
        ("a:1:2;", "a:1:2:participant"),
    ];
    for (line, shown) in cases {
        let server = Server::parse(line).unwrap();
        assert_eq!(server.to_string(), shown, "{line}");
        assert_eq!(Server::parse(shown).unwrap(), server, "what is shown is read back");
    }
    for line in [
        "",
        "a",
        "a:1",
        ":1:2",
        "a:1:2:3:4",
        "a:0:2",
        "a:1:2;b:3:4",
        "a:1:2;3;4",
        "[::1:1:2",
        "a:1:2|",
    ] {
        assert!(Server::parse(line).is_err(), "{line:?}");
    }
}

/// As `/zookeeper/config` of an ensemble of Apache's shows it.
const THREE: &str = "server.1=127.0.0.1:27811:27821:participant;0.0.0.0:27801\n\
                     server.2=127.0.0.1:27812:27822:participant;0.0.0.0:27802\n\
                     server.3=127.0.0.1:27813:27823:participant;127.0.0.1:27803\n\
                     version=100000000";

fn three() -> Members {
    Members::parse(THREE).unwrap()
}

fn id(number: i64) -> ServerId {
    ServerId::new(number).unwrap()
}

const USUAL: Allowed = Allowed {
    several_addresses: false,
    lone_server_stands_alone: true,
};

#[test]
fn the_text_of_the_configuration_is_zookeepers_and_is_read_back() {
    let members = three();
    assert_eq!((members.to_string().as_str(), members.version), (THREE, 0x1_0000_0000));
    let none = Members::default();
    assert_eq!(none.to_string(), "version=0");
    assert_eq!(Members::parse("version=0"), Ok(none));
}

#[test]
fn lines_that_are_no_membership_are_refused_by_number() {
    for (text, expected) in [
        ("x", "line 1 of the membership, \"x\": expected server.N=… or version=…"),
        (
            "version=0\nserver.0=a:1:2",
            "line 2 of the membership, \"server.0=a:1:2\": expected server.N with N from 1 to 254",
        ),
        (
            "version=g",
            "line 1 of the membership, \"version=g\": the version is no hexadecimal number",
        ),
        (
            "server.1=a:1:2\nserver.1=a:1:2",
            "line 2 of the membership, \"server.1=a:1:2\": server 1 has a line already",
        ),
    ] {
        assert_eq!(Members::parse(text).unwrap_err().to_string(), expected, "{text:?}");
    }
}

#[test]
fn more_than_half_of_the_participants_are_a_majority() {
    let mut members = three();
    members.servers.insert(id(4), Server::parse("d:1:2:observer").unwrap());
    let is_among = |servers: &'static [u8]| move |server: ServerId| servers.contains(&server.get());
    assert!(members.have_majority(is_among(&[1, 3])));
    assert!(!members.have_majority(is_among(&[1, 4])), "observers do not count");
    assert!(!Members::default().have_majority(|_| true), "nobody is no majority");
    assert_eq!(members.observers().map(|(id, _)| id.get()).collect::<Vec<_>>(), [4]);
    assert!(members.is_participant(id(2)) && !members.is_participant(id(4)) && !members.is_participant(id(5)));
}

/// The ids and roles of a list: `1 2 3o`.
fn summary(result: Result<Members, ChangeError>) -> String {
    match result {
        Ok(members) => {
            let one = |(id, server): (&ServerId, &Server)| match server.peer_type {
                PeerType::Participant => id.to_string(),
                PeerType::Observer => format!("{id}o"),
            };
            members.servers.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        Err(ChangeError::Malformed(_)) => "malformed".to_owned(),
        Err(ChangeError::Refused(_)) => "refused".to_owned(),
        Err(ChangeError::NoNumber(number)) => format!("no number {number}"),
    }
}

#[test]
fn servers_join_and_leave_as_apache_has_it() {
    // joining, leaving, what comes of it
    let cases = [
        ("", "", "1 2 3"),
        ("", "9", "1 2 3"),
        ("", " 9 , ,8", "1 2 3"),
        ("", "3", "1 2"),
        ("", "3,-4,300", "1 2"),
        ("", "server.3", "malformed"),
        ("", "x", "malformed"),
        ("", "2,3", "refused"),
        ("", "1,2,3", "refused"),
        ("x", "", "refused"),
        ("server.x=1.2.3.4:1:2;3", "", "malformed"),
        ("server.4=1.2.3.4:1:2", "", "refused"),
        ("server.4=1.2.3.4:1:2;", "", "refused"),
        ("server.4=1.2.3.4:1:1;3", "", "refused"),
        ("server.4=1.2.3.4:1:2:foo;3", "", "refused"),
        ("server.4=1.2.3.4:1;3", "", "refused"),
        ("server.4=1.2.3.4:1:2;3;4", "", "refused"),
        ("server.4=1.2.3.4:1:2|1.2.3.5:1:2;3", "", "refused"),
        ("server.4=1.2.3.4:1:2;1.2.3.4:x", "", "refused"),
        ("server.4=1.2.3.4:1:2;3=4", "", "refused"),
        ("4=1.2.3.4:1:2:observer;3", "", "1 2 3 4o"),
        ("server.4=1.2.3.4:1:2:observer;3", "3", "1 2 4o"),
        // All on one machine is how everybody tries it out.
        (
            "server.4=127.0.0.1:27812:27823:observer;127.0.0.1:27803",
            "",
            "1 2 3 4o",
        ),
        ("server.4=localhost:27812:27823;localhost:27803", "", "1 2 3 4"),
        (
            "server.4=1.2.3.4:1:2:observer;3,server.5=1.2.3.4:1:3:observer;4",
            "",
            "refused",
        ),
        ("server.4=a:1:2;3,server.5=A:2:3;4", "", "refused"),
        ("server.4=a:1:2;3,server.5=b:1:2;a:1", "", "refused"),
        ("server.4=a:1:2;3,server.5=b:1:2;3", "", "1 2 3 4 5"),
        ("server.4=a:1:2;3,server.4=a:1:2:observer;3", "", "1 2 3 4o"),
        ("server.3=127.0.0.1:27813:27823:observer;127.0.0.1:27803", "", "1 2 3o"),
        // ZooKeeper takes these; our session ids have no room for them.
        ("server.-4=1.2.3.4:1:2:observer;3", "", "no number -4"),
        ("server.300=1.2.3.4:1:2:observer;3", "", "no number 300"),
    ];
    for (joining, leaving, expected) in cases {
        let result = three().changed(Some(joining), Some(leaving), USUAL);
        assert_eq!(summary(result), expected, "joining {joining:?}, leaving {leaving:?}");
    }
    assert_eq!(three().changed(None, None, USUAL), Ok(three()));
}

#[test]
fn a_whole_list_takes_the_place_of_another_as_apache_has_it() {
    let cases = [
        (
            "server.1=a:1:2;3,server.2=b:1:2:participant;3\nserver.3=c:1:2,version=7",
            "1 2 3",
        ),
        ("# three\n\nserver.1=a:1:2,server.2 : b:1:2,server.3\tc:1:2", "1 2 3"),
        (
            "server.1=a:1:2,server.2=b:1:2,server.1=c:1:2:observer,server.3=d:1:2",
            "1o 2 3",
        ),
        ("server.1=a:1:2,server.2=a:1:2", "1 2"),
        ("", "refused"),
        ("server.1=a:1:2", "refused"),
        ("server.1=a:1:2:observer", "malformed"),
        ("server.1=a:1:2,server.2=b:1:2:observer", "malformed"),
        ("server.x=a:1:2", "malformed"),
        ("server.1=a:1:2,server.2=b:1:2,version=x", "malformed"),
        ("server.1=a:1:2,server.2=b:1", "refused"),
        ("foo=bar", "refused"),
        ("server.1=a:1:2,server.2=b:1:2,server.3=c:1:2,foo=bar", "refused"),
        ("group.1=1:2,weight.1=1,server.1=a:1:2,server.2=b:1:2", "refused"),
        ("server.1=a:1:2|b:1:2,server.2=c:1:2", "refused"),
    ];
    for (text, expected) in cases {
        assert_eq!(summary(three().replaced(text, USUAL)), expected, "{text:?}");
    }
}

#[test]
fn what_the_leader_is_configured_to_allow_decides() {
    let one = Allowed {
        lone_server_stands_alone: false,
        ..USUAL
    };
    assert_eq!(summary(three().changed(None, Some("2,3"), one)), "1");
    assert_eq!(summary(three().changed(None, Some("1,2,3"), one)), "refused");
    assert_eq!(
        summary(three().replaced("server.1=a:1:2,server.2=b:1:2:observer", one)),
        "1 2o"
    );
    assert_eq!(summary(three().replaced("", one)), "malformed");
    let several = Allowed {
        several_addresses: true,
        ..USUAL
    };
    assert_eq!(
        summary(three().changed(Some("server.4=a:1:2|b:1:2;3"), None, several)),
        "1 2 3 4"
    );
}

#[test]
fn a_version_is_the_zxid_and_never_goes_back() {
    let members = three();
    assert_eq!(members.next_version(0x2_0000_0000), 0x2_0000_0000);
    assert_eq!(
        members.next_version(12),
        0x1_0000_0001,
        "an imported list has a zxid of ZooKeeper's"
    );
}

proptest! {
    #[test]
    fn no_server_line_makes_the_parser_panic(line in "[-a-z0-9.:;|\\[\\] ]{0,40}") {
        let _ = Server::parse(&line);
    }

    #[test]
    fn no_text_makes_a_parser_panic_and_what_is_shown_is_read_back(text in "(server\\.[0-9]{1,3}|version|x)?[=:, ]?[-a-z0-9.:;|=,\n]{0,60}") {
        let _ = Members::parse(&text);
        let list = three();
        let results = [
            list.changed(Some(&text), None, USUAL),
            list.changed(None, Some(&text), USUAL),
            list.replaced(&text, USUAL),
        ];
        for members in results.into_iter().flatten() {
            prop_assert!(members.participants().count() >= 2);
            prop_assert_eq!(Members::parse(&members.to_string()), Ok(members));
        }
    }
}
