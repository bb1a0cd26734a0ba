//! The client of certman.

use std::time::Duration;

use certseal_wire::{
    AccountDeactivation, AccountList, AccountReport, AccountRollover, BudgetReport, ChangesReport, DnsName, DnsPlan,
    EventList, Import, NamesReport, OnDemandAnswer, OrderList, OrderStatus, Renewal, Replacement, Replay, Replayed,
    Reseal, RevocationRequest, SiteChanges, SiteList, SiteRequest, SiteStatus,
};

use crate::{
    ClientError, Connection,
    connection::{Call, PATIENCE},
};

/// Calls certman.
#[derive(Debug, Clone)]
pub struct CertmanClient(Connection);

impl CertmanClient {
    /// A client over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    // A call that changes something takes longer by the time that certman itself waits for a certstore that does not
    // answer, before it asks the next one.

    /// Adds a site, or changes it. The answer is its state right after.
    pub async fn put_site(&self, site: &DnsName, request: &SiteRequest) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::put_json(&format!("/v1/sites/{site}"), request).patient(PATIENCE)).await
    }

    /// Adds, changes and removes many sites. The same call again with the same `key` has the same answer.
    pub async fn change_sites(&self, changes: &SiteChanges, key: &str) -> Result<ChangesReport, ClientError> {
        let call = Call::post_json("/v1/sites", changes).repeatable(key);
        self.0.json(call.long_poll(CHANGES, MAX_REPORT)).await
    }

    /// One site.
    pub async fn site(&self, site: &DnsName) -> Result<Option<SiteStatus>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/sites/{site}"))).await
    }

    /// A page of sites, those after the name `after`.
    pub async fn sites(&self, after: Option<&DnsName>) -> Result<SiteList, ClientError> {
        let path = match after {
            Some(name) => format!("/v1/sites?after={name}"),
            None => "/v1/sites".to_owned(),
        };
        self.0.json(Call::get(&path)).await
    }

    /// The sites whose certificates are near their end.
    pub async fn expiring(&self) -> Result<SiteList, ClientError> {
        self.0.json(Call::get("/v1/sites?expiring=true")).await
    }

    /// A page of orders at a stage, those of sites after the name `after`.
    pub async fn orders(&self, stage: &str, after: Option<&DnsName>) -> Result<OrderList, ClientError> {
        let after = after.map(|name| format!("&after={name}")).unwrap_or_default();
        self.0.json(Call::get(&format!("/v1/orders?stage={stage}{after}"))).await
    }

    /// A site's order.
    pub async fn order(&self, site: &DnsName) -> Result<Option<OrderStatus>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/sites/{site}/order"))).await
    }

    /// Has a site's order tried again now.
    pub async fn retry_order(&self, site: &DnsName) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/sites/{site}/order/retry"), &()).patient(PATIENCE)).await
    }

    /// Gives a site's order up.
    pub async fn discard_order(&self, site: &DnsName) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::delete(&format!("/v1/sites/{site}/order")).patient(PATIENCE)).await
    }

    /// The DNS records that a site's names should have.
    pub async fn dns_plan(&self, site: &DnsName) -> Result<Option<DnsPlan>, ClientError> {
        self.0.found_json(Call::get(&format!("/v1/sites/{site}/dns"))).await
    }

    /// The DNS records of the platform itself.
    pub async fn own_dns_plan(&self) -> Result<DnsPlan, ClientError> {
        self.0.json(Call::get("/v1/dns")).await
    }

    /// Has certman look at a site's names in the DNS.
    pub async fn look_at_dns(&self, site: &DnsName) -> Result<Option<NamesReport>, ClientError> {
        self.0.found_json(Call::post_json(&format!("/v1/sites/{site}/dns"), &()).patient(LOOK)).await
    }

    /// A page of what happened to sites in the last week, the oldest first, after the place that the page before names.
    pub async fn events(&self, after: Option<&str>) -> Result<EventList, ClientError> {
        let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
        self.0.json(Call::get(&format!("/v1/events{after}"))).await
    }

    /// Has events sent again.
    pub async fn replay(&self, replay: &Replay) -> Result<Replayed, ClientError> {
        self.0.json(Call::post_json("/v1/events/replay", replay).patient(PATIENCE)).await
    }

    /// The accounts at the CAs.
    pub async fn accounts(&self) -> Result<AccountList, ClientError> {
        self.0.json(Call::get("/v1/accounts").patient(AT_A_CA)).await
    }

    /// Gives an account another key.
    pub async fn roll_account_over(&self, rollover: &AccountRollover) -> Result<AccountReport, ClientError> {
        self.0.json(Call::post_json("/v1/accounts/rollover", rollover).patient(AT_A_CA)).await
    }

    /// Ends an account, for good.
    pub async fn deactivate_account(&self, deactivation: &AccountDeactivation) -> Result<AccountReport, ClientError> {
        self.0.json(Call::post_json("/v1/accounts/deactivation", deactivation).patient(AT_A_CA)).await
    }

    /// The limits of the preferred CA, and what of them is used.
    pub async fn budget(&self) -> Result<BudgetReport, ClientError> {
        self.0.json(Call::get("/v1/budget")).await
    }

    /// The limits of one of the CAs, as [`CertmanClient::budget`] names it.
    pub async fn budget_at(&self, authority: &str) -> Result<BudgetReport, ClientError> {
        let escaped: String = url_escaped(authority);
        self.0.json(Call::get(&format!("/v1/budget?authority={escaped}"))).await
    }

    /// Begins a site's renewal now, or at an earlier time than planned.
    pub async fn renew(&self, site: &DnsName, renewal: &Renewal) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/sites/{site}/renew"), renewal).patient(PATIENCE)).await
    }

    /// Has the CA asked now when it wants the certificate to be renewed.
    pub async fn ask_advice(&self, site: &DnsName) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/sites/{site}/advice"), &()).patient(PATIENCE)).await
    }

    /// Has the certificate with a compromised key issued again, with another key, and the old one revoked.
    pub async fn replace(&self, site: &DnsName, version: u64) -> Result<SiteStatus, ClientError> {
        self.0
            .json(Call::post_json(&format!("/v1/sites/{site}/replacement"), &Replacement { version }).patient(PATIENCE))
            .await
    }

    /// Has a site's certificate revoked: once another one has taken its place, or at once.
    pub async fn revoke(&self, site: &DnsName, request: &RevocationRequest) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/sites/{site}/revocation"), request).patient(PATIENCE)).await
    }

    /// Adds a site with a certificate and a key as a platform has them.
    pub async fn import(&self, site: &DnsName, import: &Import) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/sites/{site}/import"), import).patient(PATIENCE)).await
    }

    /// Has the key of the stored certificate, sealed anew, put into its next bundle.
    pub async fn reseal(&self, site: &DnsName, reseal: &Reseal) -> Result<SiteStatus, ClientError> {
        self.0.json(Call::post_json(&format!("/v1/sites/{site}/envelope"), reseal).patient(PATIENCE)).await
    }

    /// Asks for a certificate for a name that no site has. A certman that has too much to do is not asked again here.
    pub async fn on_demand(&self, name: &DnsName) -> Result<OnDemandAnswer, ClientError> {
        self.0.json(Call::post(&format!("/v1/on-demand/{name}")).impatient()).await
    }

    /// Removes a site: its route, its bundle, its orders.
    pub async fn remove_site(&self, site: &DnsName) -> Result<(), ClientError> {
        self.0.bytes(Call::delete(&format!("/v1/sites/{site}")).patient(PATIENCE)).await.map(drop)
    }
}

/// A text in a query (RFC 3986, 2.1).
fn url_escaped(text: &str) -> String {
    let escaped = |octet: u8| match octet {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(octet).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escaped).collect()
}

/// For many changes together.
const CHANGES: Duration = Duration::from_secs(60);
/// Octets of what certman says of 10,000 changes, with names and reasons of the usual lengths.
const MAX_REPORT: usize = 8 * 1024 * 1024;

/// For requests for which certman asks a CA, which has half a minute for each answer.
const AT_A_CA: Duration = Duration::from_secs(120);

/// For a look at the names of a site: slow servers of customers have their time.
const LOOK: Duration = Duration::from_secs(60);
