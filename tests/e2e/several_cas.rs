//! More than one CA: when one is away, orders go to the next, and to the first again once it is back.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use certseal_wire::{DnsName, Renewal};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    pebble::Pebble,
    platform::{Authority, Platform},
    process::free_address,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_go_to_another_ca_while_one_is_away_and_back_to_it_afterwards() {
    let first = Pebble::start(0);
    let key = URL_SAFE_NO_PAD.encode([7; 32]);
    let second = Pebble::start_bound(("customer-1", &key), first.http);
    let relay = Relay { address: free_address(), to: first.address, tasks: Arc::default() };
    relay.open().await;
    let directory = format!("https://{}/dir", relay.address);
    let authority = Authority::Acme { directory: &directory, roots: &first.tls_root };
    let mut platform = Platform::start_with_http(authority, first.http).await;
    let key_file = platform.pki("external.key");
    std::fs::write(&key_file, format!("{key}\n")).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    platform.configure_authority(&format!(
        "[[further_authorities]]\nkind = \"acme\"\ndirectory = \"{}\"\nroots = \"{}\"\n\
         external_account = {{ key_id = \"customer-1\", key_file = \"{}\" }}",
        second.directory(),
        second.tls_root.display(),
        key_file.display()
    ));
    let name = |text: &str| text.parse::<DnsName>().unwrap();
    let roots = [first.issuing_root(), second.issuing_root()];
    let served_by = |platform: &Platform, name: &DnsName| {
        let is_served = |root| platform.curl(root, name).status.success();
        [is_served(&roots[0]), is_served(&roots[1])]
    };
    let until_served_by = async |platform: &Platform, name: &DnsName, by: [bool; 2]| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while served_by(platform, name) != by {
            assert!(Instant::now() < deadline, "{name} is served by {:?}", served_by(platform, name));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };

    let early = name("early.customers.test");
    platform.add_site(&early).await;
    platform.wait_active(&early, 1).await;
    until_served_by(&platform, &early, [true, false]).await;

    // Away: new names come from the other one, whose account is bound to the customer's.
    relay.close();
    let late = [name("late-1.customers.test"), name("late-2.customers.test"), name("late-3.customers.test")];
    let began = Instant::now();
    for name in &late {
        platform.add_site(name).await;
    }
    for name in &late {
        platform.wait_active(name, 1).await;
        until_served_by(&platform, name, [false, true]).await;
    }
    println!("three names at another CA {:.1?} after their own was gone", began.elapsed());
    let said: Value = serde_json::from_slice(&platform.certctl(&["--json", "budget"]).stdout).unwrap();
    let away: Vec<bool> =
        said[0]["authorities"].as_array().unwrap().iter().map(|it| it["is_away"].as_bool().unwrap()).collect();
    assert_eq!(away, [true, false], "{said}");
    // What was ordered there before is served on, and renewed at the other one.
    certman_renews(&platform, &early).await;
    platform.wait_active(&early, 2).await;
    until_served_by(&platform, &early, [false, true]).await;

    // Back: a while later it gets the orders again.
    relay.open().await;
    let deadline = Instant::now() + Duration::from_secs(90);
    for number in 0.. {
        assert!(Instant::now() < deadline, "the first CA gets no orders");
        let again = name(&format!("again-{number}.customers.test"));
        platform.add_site(&again).await;
        platform.wait_active(&again, 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        if served_by(&platform, &again) == [true, false] {
            break;
        }
    }
    // Both accounts are known to edges, each with its own key.
    let files = std::fs::read_dir(platform.dir.path().join("certman")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let keys = names.filter(|name| name.starts_with("acme-account-127.0.0.1-") && name.ends_with(".key"));
    assert_eq!(keys.count(), 2);
}

async fn certman_renews(platform: &Platform, name: &DnsName) {
    platform.certman_as("platform").renew(name, &Renewal::default()).await.unwrap();
}

/// The way to a CA, which can be cut.
struct Relay {
    address: SocketAddr,
    to: SocketAddr,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Relay {
    async fn open(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (to, tasks) = (self.to, self.tasks.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let relayed = tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                tasks.lock().unwrap().push(relayed);
            }
        });
        self.tasks.lock().unwrap().push(accepting);
    }

    fn close(&self) {
        self.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}
