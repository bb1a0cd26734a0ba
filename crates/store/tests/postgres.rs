//! The promises of the PostgreSQL backend beyond the contract: of lost replies, of several stores at once, of servers
//! that are not to be trusted with data.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{Read, Write as _},
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use certseal_store::{Expect, PostgresOptions, PostgresStore, Storage, StoreError, Table, Transaction, Write};

use support::postgres::{Database, Server};

/// A reply to COMMIT that is lost before or after the server has it: no write is lost, none happens twice.
#[test]
fn a_commit_takes_effect_once_when_its_reply_is_lost() {
    let database = Server::shared().database();
    let cutter = Cutter::start(&database);
    let store = open(&cutter.url(&database));
    let (writers, rounds) = (4, 60);
    thread::scope(|scope| {
        for writer in 0..writers {
            let store = &store;
            scope.spawn(move || {
                for round in 1..=rounds {
                    // Absent or the version before: a second application would end in a conflict.
                    let expect = if round == 1 { Expect::Absent } else { Expect::Version(round - 1) };
                    let key = format!("k{writer}");
                    let write = Write::put(TABLE, key.as_str(), round, "v").expect(expect).event("e");
                    store.commit(Transaction::from(write).audited(format!("{key} {round}"))).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..30 {
                cutter.armed.store(true, Ordering::Release);
                thread::sleep(Duration::from_millis(25));
            }
        });
    });
    let total = writers * rounds;
    assert!(cutter.before.load(Ordering::Acquire) >= 3, "too few cuts to tell");
    assert!(cutter.after.load(Ordering::Acquire) >= 3, "too few cuts to tell");
    assert_eq!(store.audit_ends().unwrap().head.number, total);
    assert_eq!(store.head().unwrap().seq, total, "each write has one event");
}

#[test]
fn stores_that_share_a_database_share_one_history() {
    let database = Arc::new(Server::shared().database());
    // At once, on an empty database: the tables are made by one of them.
    let opening = (0..4).map(|_| {
        let url = database.url();
        thread::spawn(move || open(&url))
    });
    let opening: Vec<_> = opening.collect();
    let stores: Vec<_> = opening.into_iter().map(|one| one.join().unwrap()).collect();
    assert!(stores.iter().all(|store| store.head().unwrap() == stores[0].head().unwrap()));

    let (rounds, reader) = (40, &stores[3]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let following = scope.spawn(|| follow(reader, &done));
        let writing: Vec<_> = (stores[..3].iter().enumerate())
            .map(|(index, store)| {
                scope.spawn(move || {
                    for round in 1..=rounds {
                        increment(store);
                        let event = format!("{index} {round}");
                        store.commit(Write::put(TABLE, index.to_string(), round, "").event(event).into()).unwrap();
                    }
                })
            })
            .collect();
        writing.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        let seen = following.join().unwrap();
        assert_eq!(seen, [rounds; 3], "the follower missed the newest event of a store");
    });
    assert_eq!(reader.get(TABLE, b"counter").unwrap().unwrap().version, 3 * rounds);
}

#[test]
fn a_server_that_does_not_sync_its_disk_is_refused() {
    let database = Arc::new(Server::start_with(&["fsync=off"])).database();
    let refused = PostgresStore::open(PostgresOptions::new(database.url()));
    assert!(matches!(refused, Err(StoreError::UnsafeServer { setting: "fsync", .. })), "{refused:?}");
}

#[test]
fn a_weakened_synchronous_commit_is_strengthened() {
    let database = Server::shared().database();
    database.sql(&format!("ALTER DATABASE {} SET synchronous_commit = off", database.sql("SELECT current_database()")));
    assert_eq!(database.sql("SHOW synchronous_commit"), "off");
    let store = open(&database.url());
    // The settings in force in the session that writes show only from inside: in a trigger.
    database.sql(
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
         CREATE TRIGGER see AFTER UPDATE ON certseal.meta EXECUTE FUNCTION see()",
    );
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    assert_eq!(database.sql("SELECT DISTINCT setting FROM seen"), "on");
}

#[test]
fn tables_of_a_newer_release_are_refused() {
    let database = Server::shared().database();
    drop(open(&database.url()));
    database.sql("INSERT INTO certseal.schema_migrations VALUES (99, now())");
    let refused = PostgresStore::open(PostgresOptions::new(database.url()));
    assert!(matches!(refused, Err(StoreError::SchemaTooNew { found: 99, .. })), "{refused:?}");
}

#[test]
fn a_database_that_went_back_is_refused_until_it_is_declared_restored() {
    let database = Server::shared().database();
    let options = || PostgresOptions { give_up: Duration::from_secs(1), ..PostgresOptions::new(database.url()) };
    let store = PostgresStore::open(options()).unwrap();
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    database.sql("UPDATE certseal.meta SET seq = 0");
    let write = || Transaction::from(Write::put(TABLE, "a", 2, "v"));
    assert!(matches!(store.commit(write()), Err(StoreError::WentBack { .. })));
    assert!(matches!(store.head(), Err(StoreError::WentBack { .. })));
    // Nor are records shown that may be older than what was acknowledged.
    assert!(matches!(store.get(TABLE, b"a"), Err(StoreError::WentBack { .. })));
    assert!(matches!(store.scan(TABLE, None, 10), Err(StoreError::WentBack { .. })));
    assert!(matches!(store.scan_prefix(TABLE, b"a", 10), Err(StoreError::WentBack { .. })));
    assert!(matches!(store.expired(TABLE, 1, 10), Err(StoreError::WentBack { .. })));
    assert_eq!(database.sql("SELECT version FROM certseal.records"), "1", "a refusal changes nothing");

    let restored = PostgresStore::open_restored(options()).unwrap();
    let position = restored.commit(write()).unwrap();
    assert!(matches!(store.commit(write()), Err(StoreError::WentBack { found, .. }) if found.epoch == position.epoch));
}

/// The server reports success, with a warning, when its wait for replicas is cancelled: the commit may be gone after a
/// failover. Nobody is to rely on it before a replica has it.
#[test]
fn what_no_replica_has_is_neither_acknowledged_nor_shown() {
    let server = Arc::new(Server::start());
    let database = Arc::clone(&server).database();
    let options = |seconds| PostgresOptions {
        give_up: Duration::from_secs(seconds),
        statement_timeout: Duration::from_secs(1),
        ..PostgresOptions::new(database.url())
    };
    let (writer, reader) = (PostgresStore::open(options(4)).unwrap(), PostgresStore::open(options(2)).unwrap());
    let first = writer.commit(Write::put(TABLE, "a", 1, "v").event("a1").into()).unwrap();
    assert_eq!(reader.head().unwrap(), first);
    let wait_for = |standby: &str| {
        server.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"));
        server.sql("postgres", "SELECT pg_reload_conf()");
        thread::sleep(Duration::from_millis(300));
    };
    wait_for("a_replica_that_is_gone");
    let cancel = || {
        let waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        server.sql("postgres", waiting).lines().filter(|line| *line == "t").count()
    };
    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.commit(Write::put(TABLE, "a", 2, "v").event("a2").into()));
        let mut cancelled = 0;
        while !writing.is_finished() {
            cancelled += cancel();
            thread::sleep(Duration::from_millis(50));
        }
        let outcome = writing.join().unwrap();
        assert!(cancelled > 0, "nothing waited for a replica");
        assert!(matches!(outcome, Err(StoreError::Unavailable { .. })), "{outcome:?}");
    });
    // Control: the server itself shows it.
    assert_eq!(database.sql("SELECT version FROM certseal.records"), "2");
    assert!(matches!(reader.feed(0, 10), Err(StoreError::Unavailable { .. })));
    assert!(matches!(reader.head(), Err(StoreError::Unavailable { .. })));

    wait_for("");
    let feed = reader.feed(0, 10).unwrap();
    assert_eq!(feed.iter().map(|entry| entry.event.as_slice()).collect::<Vec<_>>(), [b"a2"]);
    writer.commit(Write::put(TABLE, "a", 3, "v").expect(Expect::Version(2)).into()).unwrap();
}

/// A store that has nothing to write for a month is as open as any other: nobody may forget it, and nobody may copy its
/// database meanwhile.
#[test]
fn an_idle_store_shows_that_it_is_open() {
    let database = Server::shared().database();
    let store = open(&database.url());
    let seen = |within: &str| {
        let recent = format!("SELECT count(*) FROM certseal.writers WHERE seen_at > now() - interval '{within}'");
        database.sql(&recent).parse::<u32>().unwrap()
    };
    assert_eq!(seen("1 minute"), 2, "the writer's row, and that of its readers");
    database.sql("UPDATE certseal.writers SET seen_at = now() - interval '29 days'");
    // The control: of a store that is not open any more.
    database.sql("INSERT INTO certseal.writers VALUES ('dead', 0, now() - interval '31 days')");
    let source = || PostgresStore::source(PostgresOptions::new(database.url())).map(drop);
    source().expect("nobody is seen yet");
    let give_up = Instant::now() + Duration::from_secs(60);
    while seen("1 minute") < 2 {
        assert!(Instant::now() < give_up, "an open store was not seen for a minute");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(matches!(source(), Err(StoreError::StillOpen { .. })));
    assert_eq!(seen("100 days"), 3);
    drop(open(&database.url()));
    assert_eq!(seen("100 days"), 4, "the dead one was not forgotten, or another one was");
    store.commit(Write::put(TABLE, "a", 1, "v").event("e").into()).unwrap();
}

#[test]
fn an_unreachable_database_is_an_error_within_the_time_that_was_set() {
    let server = Arc::new(Server::start());
    let database = Arc::clone(&server).database();
    let give_up = Duration::from_millis(600);
    let store = PostgresStore::open(PostgresOptions { give_up, ..PostgresOptions::new(database.url()) }).unwrap();
    server.stop();
    let started = Instant::now();
    let failed = store.commit(Write::put(TABLE, "a", 1, "v").into());
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(store.healthy().is_err());
    assert!(matches!(store.get(TABLE, b"a"), Err(StoreError::Unavailable { .. })));

    server.restart();
    store.commit(Write::put(TABLE, "a", 1, "v").expect(Expect::Absent).into()).unwrap();
    store.healthy().unwrap();
}

/// A server that hangs still takes connections: the kernel does that. It must not keep a store from the one that works.
#[test]
fn a_host_that_hangs_does_not_keep_a_store_from_the_others() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Arc::new(Server::start_with(&["listen_addresses=127.0.0.1", &format!("port={port}")]));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = silent.local_addr().unwrap().port();
    let options = PostgresOptions {
        connect_timeout: Duration::from_millis(100),
        give_up: Duration::from_secs(8),
        ..PostgresOptions::new(format!("host=127.0.0.1,127.0.0.1 port={hangs},{port} user=certseal dbname=postgres"))
    };
    let store = PostgresStore::open(options.clone()).unwrap();
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    assert_eq!(store.get(TABLE, b"a").unwrap().unwrap().version, 1);
    drop(store);
    // The control: it hangs.
    drop(server);
    assert!(matches!(PostgresStore::open(options), Err(StoreError::Unavailable { .. })));
}

/// A server that hangs keeps its connections, also that on which a commit is under way.
#[test]
fn a_commit_that_hangs_is_asked_after_before_the_time_is_over() {
    for reaches_server in [false, true] {
        let database = Server::shared().database();
        let cutter = Cutter::start(&database);
        cutter.hangs.store(true, Ordering::Release);
        let statement_timeout = Duration::from_secs(1);
        let options = PostgresOptions { statement_timeout, ..PostgresOptions::new(cutter.url(&database)) };
        let store = PostgresStore::open(options).unwrap();
        // As many commits have been cut before and after the server had them.
        cutter.before.store(u32::from(reaches_server), Ordering::Release);
        cutter.armed.store(true, Ordering::Release);
        let started = Instant::now();
        let write = Write::put(TABLE, "a", 1, "v").expect(Expect::Absent).event("e");
        store.commit(Transaction::from(write).audited("once")).unwrap();
        let took = started.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&took), "{took:?}");
        assert_eq!((store.head().unwrap().seq, store.audit_ends().unwrap().head.number), (1, 1));
    }
}

#[test]
fn a_server_is_used_over_tls_when_it_proves_its_name() {
    let files = tempfile::tempdir().unwrap();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| files.path().join(name);
    let issue = |names: &[&str], prefix: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        fs::write(path(&format!("{prefix}.pem")), certificate.pem()).unwrap();
        fs::write(path(&format!("{prefix}.key")), key.serialize_pem()).unwrap();
        fs::set_permissions(path(&format!("{prefix}.key")), fs::Permissions::from_mode(0o600)).unwrap();
    };
    issue(&["localhost"], "server");
    issue(&["localhost"], "other");
    if let Some((user, group)) = support::postgres::account() {
        chown(path("server.key"), Some(user), Some(group)).unwrap();
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let server = Arc::new(Server::start_with(&[
        "listen_addresses=127.0.0.1",
        &format!("port={port}"),
        "ssl=on",
        &format!("ssl_cert_file={}", certificate.display()),
        &format!("ssl_key_file={}", key.display()),
    ]));
    let connect = |host: &str, ca: &str| {
        let url = format!("host={host} port={port} user=certseal dbname=postgres sslmode=verify-full");
        let give_up = Duration::from_secs(1);
        PostgresStore::open(PostgresOptions { ca: Some(path(ca)), give_up, ..PostgresOptions::new(url) })
    };
    let store = connect("localhost", "server.pem").unwrap();
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    let mut asking = server.client(port);
    let encrypted = support::postgres::run(asking.args([
        "--command",
        "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'certseal'",
    ]));
    assert_eq!(encrypted, "t");
    let refused = |host, ca| match connect(host, ca) {
        Err(StoreError::Unavailable { cause, .. }) => cause.contains("invalid peer certificate"),
        _ => false,
    };
    assert!(refused("localhost", "other.pem"), "another CA's server");
    assert!(refused("127.0.0.1", "server.pem"), "another name");
}

#[test]
fn numbers_that_the_database_cannot_hold_are_refused() {
    let database = Server::shared().database();
    let store = open(&database.url());
    let refused = store.commit(Write::put(TABLE, "a", u64::MAX, "v").into());
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    assert_eq!(store.head().unwrap().seq, 0);
}

/// From a reactor, where waiting for a future the ordinary way would panic.
#[tokio::test]
async fn a_store_may_be_used_and_dropped_on_a_reactor() {
    let database = Server::shared().database();
    let store = open(&database.url());
    store.commit(Write::put(TABLE, "a", 1, "v").into()).unwrap();
    assert_eq!(store.get(TABLE, b"a").unwrap().unwrap().version, 1);
    drop(store);
}

fn follow(store: &PostgresStore, done: &AtomicBool) -> [u64; 3] {
    let (mut cursor, mut seen) = (0, [0; 3]);
    loop {
        let last_round = done.load(Ordering::Acquire);
        let page = store.feed(cursor, 5).unwrap();
        if page.is_empty() && last_round {
            return seen;
        }
        for entry in page {
            assert!(entry.seq > cursor);
            cursor = entry.seq;
            let event = String::from_utf8(entry.event).unwrap();
            let (index, round) = event.split_once(' ').unwrap();
            let (index, round): (usize, u64) = (index.parse().unwrap(), round.parse().unwrap());
            assert!(seen[index] < round);
            seen[index] = round;
        }
    }
}

fn increment(store: &PostgresStore) {
    loop {
        let version = store.get(TABLE, b"counter").unwrap().map_or(0, |record| record.version);
        let expect = if version == 0 { Expect::Absent } else { Expect::Version(version) };
        match store.commit(Write::put(TABLE, "counter", version + 1, "").expect(expect).into()) {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn open(url: &str) -> PostgresStore {
    PostgresStore::open(PostgresOptions::new(url)).unwrap()
}

/// Stands between a store and its server, and cuts connections around COMMIT when it is armed: before the server sees
/// it, and after it has answered, in turn. Or it keeps them open, and silent.
struct Cutter {
    directory: tempfile::TempDir,
    armed: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    before: Arc<AtomicU32>,
    after: Arc<AtomicU32>,
}

impl Cutter {
    fn start(database: &Database) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let (armed, hangs) = (Arc::default(), Arc::default());
        let cutter = Self { directory, armed, hangs, before: Arc::default(), after: Arc::default() };
        let (armed, before, after) = (cutter.armed.clone(), cutter.before.clone(), cutter.after.clone());
        let hangs = cutter.hangs.clone();
        let server: PathBuf = database.server.directory().join(SOCKET);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (armed, before, after) = (armed.clone(), before.clone(), after.clone());
                let hangs = hangs.clone();
                let (client, server) = (client.unwrap(), UnixStream::connect(&server).unwrap());
                thread::spawn(move || forward(&client, &server, &armed, &hangs, &before, &after));
            }
        });
        cutter
    }

    fn url(&self, database: &Database) -> String {
        database
            .url()
            .replace(&*database.server.directory().to_string_lossy(), &self.directory.path().to_string_lossy())
    }
}

fn forward(
    client: &UnixStream,
    server: &UnixStream,
    armed: &AtomicBool,
    hangs: &AtomicBool,
    before: &AtomicU32,
    after: &AtomicU32,
) {
    let muted = Arc::new(AtomicBool::new(false));
    let answering = {
        let (mut from, mut to, muted) = (server.try_clone().unwrap(), client.try_clone().unwrap(), muted.clone());
        let hangs = hangs.load(Ordering::Acquire);
        thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if hangs && muted.load(Ordering::Acquire) {
                    continue;
                }
                // The server has answered; its answer gets lost with the connection.
                if muted.load(Ordering::Acquire) || to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = from.shutdown(std::net::Shutdown::Both);
        })
    };
    let (mut from, mut to) = (client, server);
    let mut buffer = [0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let commits = buffer[..read].windows(7).any(|bytes| bytes == b"COMMIT\0");
        if commits && armed.swap(false, Ordering::AcqRel) {
            if before.load(Ordering::Acquire) <= after.load(Ordering::Acquire) {
                before.fetch_add(1, Ordering::AcqRel);
                if hangs.load(Ordering::Acquire) {
                    // Nothing more reaches the server, until the client gives up.
                    while let Ok(1..) = from.read(&mut buffer) {}
                }
                break;
            }
            after.fetch_add(1, Ordering::AcqRel);
            muted.store(true, Ordering::Release);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    if !muted.load(Ordering::Acquire) || hangs.load(Ordering::Acquire) {
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
    answering.join().unwrap();
}

const SOCKET: &str = ".s.PGSQL.5432";
const TABLE: Table = Table::new("t");
