//! The account at a real CA gets another key, wherever certman dies meanwhile, and ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use certseal_wire::{AccountReport, AccountState, AcmeAccounts, DnsName};

use crate::{
    edge::{eventually, eventually_async},
    fault_proxy::{FaultProxy, Hold},
    pebble::Pebble,
    platform::{Authority, Platform},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_gets_another_key_without_a_failed_order_and_the_ca_knows_the_old_one_no_more() {
    let pebble = Pebble::start(5);
    let directory = pebble.directory();
    let authority = Authority::Acme { directory: &directory, roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let site: DnsName = "early.customers.test".parse().unwrap();
    platform.add_site(&site).await;
    platform.wait_active(&site, 1).await;
    let before = account(&platform).await;
    let old = before.thumbprint.clone().unwrap();
    assert_eq!(
        (before.state, before.is_vouched_for, listed(&platform).await),
        (AccountState::Active, true, vec![old.clone()])
    );
    let key_file = key_file(&platform);
    let old_key = fs::read_to_string(&key_file).unwrap();

    let output = platform.certctl(&["--json", "account", "rollover", &directory]);
    assert!(output.status.success(), "{output:?}\n{}", platform.certman.log());
    let after: AccountReport = serde_json::from_slice(&output.stdout).unwrap();
    let new = after.thumbprint.clone().unwrap();
    assert_ne!(new, old);
    assert_eq!((&after.account, after.is_vouched_for, after.former.len()), (&before.account, true, 1));
    assert_eq!(after.former[0].thumbprint, old, "edges still answer what is under way");
    assert_eq!(listed(&platform).await, [old.clone(), new.clone()]);
    let new_key = fs::read_to_string(&key_file).unwrap();
    assert!(new_key != old_key && !beside(&key_file, ".next").exists());
    // Its file is as private as the one before.
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);

    // New names and renewals, by challenges that edges answer for the new key.
    let late: DnsName = "late.customers.test".parse().unwrap();
    platform.add_site(&late).await;
    platform.wait_active(&late, 1).await;
    assert!(platform.certctl(&["site", "renew", site.as_str()]).status.success());
    platform.wait_active(&site, 2).await;
    assert_eq!(certman_restarted(&mut platform, || {}).await.account, before.account, "it is the same account");

    // The control: for the old key the CA knows no account any more, and makes another one.
    let stranger = certman_restarted(&mut platform, || fs::write(&key_file, &old_key).unwrap()).await;
    assert_eq!(stranger.thumbprint, Some(old.clone()));
    assert_ne!(stranger.account, before.account);
    // The key that the CA knows is the next one, as if the process had died before it took its place.
    let next = beside(&key_file, ".next");
    let own = certman_restarted(&mut platform, || {
        fs::write(&next, &new_key).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    })
    .await;
    assert_eq!((own.account, own.thumbprint), (before.account, Some(new.clone())));
    assert_eq!((fs::read_to_string(&key_file).unwrap(), next.exists()), (new_key, false));

    // An hour later edges answer for the new key alone.
    let note = beside(&key_file, ".account");
    certman_restarted(&mut platform, || {
        let text = fs::read_to_string(&note).unwrap();
        let mut text: serde_json::Value = serde_json::from_str(&text).unwrap();
        text["former"][0]["until"] = "2026-01-01T00:00:00Z".into();
        fs::write(&note, text.to_string()).unwrap();
    })
    .await;
    eventually_async("the old key is forgotten", async || listed(&platform).await == [new.clone()]).await;
    eventually_async("it is noted no more", async || account(&platform).await.former.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certman_that_dies_while_its_account_gets_another_key_goes_on_with_the_one_that_the_ca_knows() {
    let pebble = Pebble::start(0);
    let proxy = FaultProxy::start(&pebble).await;
    let directory = proxy.directory();
    let authority = Authority::Acme { directory: &directory, roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let site: DnsName = "shop.customers.test".parse().unwrap();
    platform.add_site(&site).await;
    platform.wait_active(&site, 1).await;
    let first = account(&platform).await;
    for (number, after) in [false, true].into_iter().enumerate() {
        proxy.hold(Hold { path: "/rollover-account-key", after });
        let mut command = platform.certctl_command(&["account", "rollover", &directory]).spawn().unwrap();
        proxy.wait_held().await;
        assert!(beside(&key_file(&platform), ".next").exists(), "it is on the disk before the CA hears of it");
        platform.certman.kill();
        assert!(!command.wait().unwrap().success());
        proxy.release();
        platform.restart_certman();
        let now = account(&platform).await;
        assert_eq!(now.account, first.account, "another account was made");
        assert_eq!(now.thumbprint != first.thumbprint, after, "the CA has the next key if it heard of it");
        // The list of edges had it before.
        platform.certctl(&["site", "renew", site.as_str()]);
        platform.wait_active(&site, number as u64 + 2).await;
        assert!(account(&platform).await.is_vouched_for);
    }
    // And once more, undisturbed.
    let output = platform.certctl(&["account", "rollover", &directory]);
    assert!(output.status.success(), "{output:?}\n{}", platform.certman.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_has_ended_gets_no_orders_and_edges_answer_for_it_no_more() {
    let pebble = Pebble::start(5);
    let directory = pebble.directory();
    let authority = Authority::Acme { directory: &directory, roots: &pebble.tls_root };
    let mut platform = Platform::start_with_http(authority, pebble.http).await;
    let early: DnsName = "early.customers.test".parse().unwrap();
    platform.add_site(&early).await;
    platform.wait_active(&early, 1).await;
    let before = account(&platform).await;
    let url = before.account.clone().unwrap();

    let deactivate = |platform: &Platform, directory: &str, url: &str| {
        platform.certctl(&["account", "deactivate", directory, "--confirm", url])
    };
    for (directory, url, said) in [
        (directory.as_str(), "https://ca.example/account/1", "expected https://"),
        ("https://ca.example/directory", url.as_str(), "expected the directory of a CA with an account"),
    ] {
        let output = deactivate(&platform, directory, url);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(said), "{error}");
    }
    let refused = platform.certman_as("platform").accounts().await.unwrap_err().to_string();
    assert!(refused.contains("needs role admin"), "{refused}");
    assert_eq!(account(&platform).await, before, "nothing has changed");

    let output = deactivate(&platform, &directory, &url);
    assert!(output.status.success(), "{output:?}\n{}", platform.certman.log());
    let after = account(&platform).await;
    assert_eq!(
        (after.state, after.is_vouched_for, after.account),
        (AccountState::Deactivated, false, Some(url.clone()))
    );
    assert_eq!(listed(&platform).await, Vec::<String>::new());
    assert!(deactivate(&platform, &directory, &url).status.success(), "it has ended already");

    // Nothing comes from there any more, also after a restart.
    platform.certman.kill();
    platform.restart_certman();
    let late: DnsName = "late.customers.test".parse().unwrap();
    platform.add_site(&late).await;
    let certman = platform.certman_as("platform");
    eventually_async("the site says why", async || {
        let status = certman.site(&late).await.unwrap().unwrap();
        status.order.and_then(|order| order.diagnosis).is_some_and(|said| said.contains("has ended"))
    })
    .await;
    assert_eq!(account(&platform).await.state, AccountState::Deactivated);

    // With another key there is another account, and certificates.
    let other = platform.dir.path().join("other.key");
    platform.configure_authority(&format!("account_key = \"{}\"", other.display()));
    assert!(platform.certctl(&["order", "retry", late.as_str()]).status.success());
    platform.wait_active(&late, 1).await;
    assert_ne!(account(&platform).await.account, Some(url));
    let root = pebble.issuing_root();
    eventually(Duration::from_secs(5), || platform.curl(&root, &late).status.success());
    assert!(platform.curl(&root, &early).status.success(), "what there was before is served on");
}

/// The account after a restart, before which something was done to the files.
async fn certman_restarted(platform: &mut Platform, meanwhile: impl FnOnce()) -> AccountReport {
    platform.certman.kill();
    meanwhile();
    platform.restart_certman();
    account(platform).await
}

/// The one account, as an administrator sees it.
async fn account(platform: &Platform) -> AccountReport {
    let mut accounts = platform.certman_as("admin").accounts().await.unwrap().accounts;
    assert_eq!(accounts.len(), 1, "{accounts:?}");
    accounts.remove(0)
}

/// The thumbprints for which edges answer.
async fn listed(platform: &Platform) -> Vec<String> {
    let signed = platform.store_as("admin").accounts().await.unwrap().unwrap();
    serde_json::from_slice::<AcmeAccounts>(&signed.payload.0).unwrap().thumbprints
}

fn key_file(platform: &Platform) -> PathBuf {
    let files = fs::read_dir(platform.dir.path().join("certman")).unwrap();
    let mut names = files.map(|file| file.unwrap().path());
    let is_key = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("acme-account-") && name.ends_with(".key")
    };
    names.find(is_key).unwrap()
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}
