//! `certctl bundle`.

use anyhow::{Context, bail};
use certseal_ceremonies::ring_client::RingClient;
use certseal_seal::{Bundle, RingMark, Sealed, ring_issuers, sha256};
use certseal_wire::{
    BundleInfo, Deletion, DeletionQuery, Digest, DnsName, EnvelopeId, Epoch, GroupId, KeyId, PoolName, SignerId, causes,
};
use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use crate::{
    failure::{Failure, client_error},
    output::{Output, details, joined, or_dash, table},
    settings::Settings,
};

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Show a site's bundle: certificate, envelope, and whether they are genuine; never a secret
    Show {
        /// The site
        name: DnsName,
    },
    /// List the bundles that will be deleted by themselves, with the sealed keys in them, the earliest first
    Deletions {
        /// Only those within so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        within: Option<u32>,
    },
}

pub(super) async fn run(command: BundleCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    match command {
        BundleCommand::Show { name } => show(name, settings, output).await,
        BundleCommand::Deletions { within } => deletions(within, settings, output).await,
    }
}

async fn show(name: DnsName, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = settings.security_public()?;
    let store = settings.store()?;
    let bytes = store.bundle(&name).await?;
    let bytes =
        bytes.ok_or_else(|| Failure::NotFound(format!("certstore has no bundle for {name} that we may see")))?;
    let bundle = Bundle::parse(&bytes).with_context(|| format!("the bundle of {name}"))?;
    let verdict = match security {
        Some(security) => match statement(&settings.rings(&store, security)?, &name, &bundle).await {
            Ok(info) => Verdict::Genuine(info),
            // Without the ring nothing can be said about the bundle.
            Err(error) if client_error(&error).is_some() => return Err(error),
            Err(error) => Verdict::Refuted(causes(error.as_ref())),
        },
        None => Verdict::Unchecked,
    };
    let view = View::new(&name, &bytes, &bundle, &verdict)?;
    output.show(&view, || description(&view))?;
    match verdict {
        Verdict::Refuted(reason) => bail!("the bundle of {name} is not genuine: {reason}"),
        _ => Ok(()),
    }
}

async fn deletions(within: Option<u32>, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let within = within.map(|days| u64::from(days) * 24 * 60 * 60);
    let list = settings.store()?.deletions(&DeletionQuery { within, limit: Some(MAX_DELETIONS) }).await?;
    output.show(&list, || {
        let rows = list.deletions.iter().map(|Deletion { site, at, departed }| {
            let why = if *departed { "the site has left" } else { "its certificate expires" };
            [site.to_string(), at.to_string(), why.to_owned()]
        });
        let text = table(["SITE", "DELETED AT", "WHY"], rows);
        match list.deletions.len() {
            MAX_DELETIONS.. => format!("{text}\nThese are the first {MAX_DELETIONS}; there may be more."),
            _ => text,
        }
    })
}

/// certman's statement about `bundle`, if an issuer of the verified key ring put it together for the site `name`.
async fn statement(rings: &RingClient<'_>, name: &DnsName, bundle: &Bundle) -> anyhow::Result<BundleInfo> {
    let info = bundle.verify(&ring_issuers(&rings.existing(RingMark::default()).await?))?;
    if info.site != *name {
        bail!("it is the bundle of {}: the store swapped them", info.site);
    }
    Ok(info)
}

enum Verdict {
    Genuine(BundleInfo),
    Refuted(String),
    Unchecked,
}

/// All that is public about a bundle. Facts that only the signed statement has are there when it is genuine.
#[derive(Serialize)]
struct View {
    site: DnsName,
    /// Null when no key to verify with was given.
    verified: Option<bool>,
    verdict: String,
    pools: Option<Vec<PoolName>>,
    version: Option<u64>,
    certificate: CertificateView,
    envelope: EnvelopeView,
    octets: usize,
    sha256: Digest,
}

#[derive(Serialize)]
struct CertificateView {
    names: Vec<String>,
    authority: String,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    chain: usize,
    octets: usize,
}

#[derive(Serialize)]
struct EnvelopeView {
    /// Null for a key as a platform sealed it before.
    id: Option<EnvelopeId>,
    suite: &'static str,
    group: Option<GroupId>,
    issuer: SignerId,
    octets: usize,
    /// The key pair of a legacy key.
    legacy_key_id: Option<KeyId>,
    stanzas: Vec<StanzaView>,
}

#[derive(Serialize)]
struct StanzaView {
    pool: PoolName,
    epoch: Epoch,
    key_id: KeyId,
}

impl View {
    fn new(site: &DnsName, bytes: &[u8], bundle: &Bundle, verdict: &Verdict) -> anyhow::Result<Self> {
        let (verified, said, pools) = match verdict {
            Verdict::Genuine(info) => (Some(true), "verified".to_owned(), Some(info.pools.clone())),
            Verdict::Refuted(reason) => (Some(false), format!("NOT GENUINE: {reason}"), None),
            Verdict::Unchecked => (None, "not checked: give --security-public".to_owned(), None),
        };
        let version = match (verdict, bundle.sealed()) {
            (_, Sealed::Envelope(envelope)) => Some(envelope.header().key_version),
            (Verdict::Genuine(info), _) => Some(info.version),
            _ => None,
        };
        Ok(Self {
            site: site.clone(),
            verified,
            verdict: said,
            pools,
            version,
            certificate: CertificateView::new(bundle.chain())?,
            envelope: EnvelopeView::new(bundle),
            octets: bytes.len(),
            sha256: sha256(bytes),
        })
    }
}

impl CertificateView {
    fn new(chain: &[Vec<u8>]) -> anyhow::Result<Self> {
        let leaf = chain.first().context("the bundle has no certificate")?;
        let (_, leaf) = X509Certificate::from_der(leaf).context("the bundle's certificate does not parse")?;
        let names = leaf.subject_alternative_name().context("the certificate's names do not parse")?;
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Ok(Self {
            names: names.collect(),
            authority: leaf.issuer().to_string(),
            not_before: instant(leaf.validity().not_before),
            not_after: instant(leaf.validity().not_after),
            chain: chain.len(),
            octets: chain.iter().map(Vec::len).sum(),
        })
    }
}

impl EnvelopeView {
    fn new(bundle: &Bundle) -> Self {
        let sealed = bundle.sealed();
        let header = sealed.envelope().map(|envelope| envelope.header());
        let stanzas = sealed.envelope().map(|envelope| envelope.stanzas()).unwrap_or_default().iter();
        let legacy_key_id = match sealed {
            Sealed::Legacy(legacy) => Some(legacy.key_id()),
            Sealed::Envelope(_) => None,
        };
        Self {
            id: header.map(|header| header.id),
            suite: sealed.suite_name(),
            group: header.and_then(|header| header.group),
            issuer: bundle.statement().signer,
            octets: sealed.to_bytes().len(),
            legacy_key_id,
            stanzas: stanzas
                .map(|stanza| StanzaView { pool: stanza.pool.clone(), epoch: stanza.epoch, key_id: stanza.key_id })
                .collect(),
        }
    }
}

/// None for a time outside the years that can be shown.
fn instant(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}

fn description(view: &View) -> String {
    let (certificate, envelope) = (&view.certificate, &view.envelope);
    let expired = certificate.not_after.is_some_and(|end| end < Timestamp::now());
    let expires = or_dash(certificate.not_after) + if expired { " (expired)" } else { "" };
    let head = details([
        ("site", view.site.to_string()),
        ("signatures", view.verdict.clone()),
        ("version", or_dash(view.version)),
        ("pools", or_dash(view.pools.as_ref().map(joined))),
        ("names", joined(&certificate.names)),
        ("issuer", certificate.authority.clone()),
        ("valid from", or_dash(certificate.not_before)),
        ("expires", expires),
        ("chain", format!("{} certificates, {} octets", certificate.chain, certificate.octets)),
        ("envelope", or_dash(envelope.id)),
        ("suite", envelope.suite.to_owned()),
        ("group", or_dash(envelope.group)),
        ("legacy key", or_dash(envelope.legacy_key_id)),
        ("signed by", envelope.issuer.to_string()),
        ("sealed key", format!("{} octets", envelope.octets)),
        ("bundle", format!("{} octets, SHA-256 {}", view.octets, view.sha256)),
    ]);
    let stanzas = envelope.stanzas.iter();
    let rows = stanzas.map(|stanza| [stanza.pool.to_string(), stanza.epoch.to_string(), stanza.key_id.to_string()]);
    format!("{head}\n{}", table(["POOL", "EPOCH", "KEY ID"], rows))
}

/// The most that certstore lists in one answer.
const MAX_DELETIONS: usize = 1000;
