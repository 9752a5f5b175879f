//! How a kind of destination joins the product: typed for its author, erased for everybody else.
//!
//! A connector owns its configuration. The doc comments on its `Account` and `Options` are the reference page, their attributes are
//! the JSON Schema, and its checks speak in its own words. The router owns the keys that all destinations share ([`Shared`]) and
//! names no vendor: it reaches every kind through [`registry`](crate::registry), where a kind has one line.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::destination::{Destination, Spec};
use crate::error::{Error, Problem};

/// A kind of destination, as its author writes it.
pub trait Connector: Send + Sync + 'static {
    /// Static facts. `SPEC.kind` is the `type` of its accounts.
    const SPEC: &'static Spec;

    /// What it can do about a row that was deleted, beside skipping it.
    const ON_DELETE: &'static [OnDelete] = &[];

    /// `accounts.<name>` without `type`. Needs `#[serde(deny_unknown_fields)]`; secrets are [`Secret`](crate::config::Secret).
    type Account: DeserializeOwned + JsonSchema + PartialEq + Send + Sync;

    /// The connector's own keys of `destinations.<name>`: they stand beside the shared ones and must not have their names. Needs
    /// `#[serde(deny_unknown_fields)]`.
    type Options: DeserializeOwned + JsonSchema + PartialEq + Send + Sync;

    /// What destinations of one account share: limits, health, the client.
    type Connection: Send + Sync;

    /// What is wrong with an account beyond its form. Pure.
    fn check_account(account: &Self::Account) -> Vec<Problem>;

    /// What is wrong with a destination beyond its form. Pure. That `shared.identifiers` names fields of the vendor, and that one of
    /// them holds `shared.identifier`, has been checked.
    fn check(account: &Self::Account, options: &Self::Options, shared: &Shared) -> Vec<Problem>;

    /// Sets an account up; speaks to nobody yet.
    ///
    /// # Errors
    /// The account is wrong, or the platform gives no client.
    fn open(account: &Self::Account) -> Result<Self::Connection, Error>;

    /// Sets a destination up at an account; speaks to nobody yet.
    ///
    /// # Errors
    /// The options are wrong.
    fn connect(
        connection: &Arc<Self::Connection>,
        options: &Self::Options,
        shared: &Shared,
    ) -> Result<Arc<dyn Destination>, Error>;
}

/// The keys of a destination that all kinds share, as far as a connector needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The destination's name.
    pub name: String,
    /// The type of identifier without which nothing can be sent.
    pub identifier: String,
    /// The vendor's field → the type of identifier whose values it may hold.
    pub identifiers: BTreeMap<String, String>,
}

/// What becomes of a person or a property when the row behind it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// The properties that the row had set are removed.
    Unset,
    /// The person is erased.
    Erase,
}

/// A kind of destination, whichever it is.
pub type Kind = &'static dyn ErasedConnector;

/// A [`Connector`] without its types. There is one implementation, for all of them.
pub trait ErasedConnector: Send + Sync {
    fn spec(&self) -> &'static Spec;

    fn on_delete(&self) -> &'static [OnDelete];

    /// The object schema of an account, without `type`.
    fn account_schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// The object schema of the connector's own keys of a destination.
    fn options_schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// Reads an account, without `type`.
    ///
    /// # Errors
    /// It does not have the form that the schema asks for.
    fn account(&self, json: &Value) -> Result<Account, serde_json::Error>;

    /// Reads the connector's own keys of a destination.
    ///
    /// # Errors
    /// They do not have the form that the schema asks for.
    fn options(&self, json: &Value) -> Result<Options, serde_json::Error>;

    #[doc(hidden)]
    fn check_account(&self, account: &dyn Any) -> Vec<Problem>;

    #[doc(hidden)]
    fn check(&self, account: &dyn Any, options: &dyn Any, shared: &Shared) -> Vec<Problem>;

    #[doc(hidden)]
    fn open(&self, account: &dyn Any) -> Result<Arc<dyn Any + Send + Sync>, Error>;

    #[doc(hidden)]
    fn connect(
        &self,
        connection: Arc<dyn Any + Send + Sync>,
        options: &dyn Any,
        shared: &Shared,
    ) -> Result<Arc<dyn Destination>, Error>;
}

/// The account of a connector, of whichever kind. Equal accounts need no new connection.
#[derive(Clone, PartialEq)]
pub struct Account(Settings);

/// A destination's own options, of whichever kind.
#[derive(Clone, PartialEq)]
pub struct Options(Settings);

/// An account that has been set up.
#[derive(Clone)]
pub struct Connection {
    kind: Kind,
    shared: Arc<dyn Any + Send + Sync>,
}

/// The entry of a connector in the registry.
pub const fn kind<C: Connector>() -> Kind {
    &Erased::<C>(PhantomData)
}

// === impl Account ===

impl Account {
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What is wrong with it beyond its form. Pure.
    pub fn check(&self) -> Vec<Problem> {
        self.kind().check_account(self.0.value.as_any())
    }

    /// What is wrong with a destination at this account. Pure.
    pub fn check_destination(&self, options: &Options, shared: &Shared) -> Vec<Problem> {
        self.kind().check(self.0.value.as_any(), options.0.value.as_any(), shared)
    }

    /// Sets the account up; speaks to nobody yet.
    ///
    /// # Errors
    /// The account is wrong, or the platform gives no client.
    pub fn open(&self) -> Result<Connection, Error> {
        Ok(Connection { kind: self.kind(), shared: self.kind().open(self.0.value.as_any())? })
    }

    /// The account as its connector knows it.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.0.value.as_any().downcast_ref()
    }
}

// === impl Options ===

impl Options {
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The options as their connector knows them.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.0.value.as_any().downcast_ref()
    }
}

// === impl Connection ===

impl Connection {
    /// Sets a destination up at this account; speaks to nobody yet.
    ///
    /// # Errors
    /// The options are wrong, or of another kind than the account.
    pub fn connect(&self, options: &Options, shared: &Shared) -> Result<Arc<dyn Destination>, Error> {
        self.kind.connect(Arc::clone(&self.shared), options.0.value.as_any(), shared)
    }
}

// === impl Settings ===

/// The typed settings of a kind. Secrets may be among them, so nothing shows them.
#[derive(Clone)]
struct Settings {
    kind: Kind,
    value: Arc<dyn Typed>,
}

/// A value that can be compared and downcast behind a pointer.
trait Typed: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn equals(&self, other: &dyn Any) -> bool;
}

impl<T: PartialEq + Send + Sync + 'static> Typed for T {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>().is_some_and(|other| self == other)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.kind.spec().kind == other.kind.spec().kind && self.value.equals(other.value.as_any())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, …)", self.kind().spec().kind)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({}, …)", self.kind().spec().kind)
    }
}

// === impl ErasedConnector ===

struct Erased<C>(PhantomData<fn() -> C>);

impl<C: Connector> Erased<C> {
    fn settings<T: PartialEq + Send + Sync + 'static>(value: T) -> Settings {
        Settings { kind: kind::<C>(), value: Arc::new(value) }
    }

    fn typed<T: 'static>(value: &dyn Any) -> Result<&T, Error> {
        value.downcast_ref().ok_or(Error::Kind { kind: C::SPEC.kind })
    }
}

impl<C: Connector> ErasedConnector for Erased<C> {
    fn spec(&self) -> &'static Spec {
        C::SPEC
    }

    fn on_delete(&self) -> &'static [OnDelete] {
        C::ON_DELETE
    }

    fn account_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        C::Account::json_schema(generator)
    }

    fn options_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        C::Options::json_schema(generator)
    }

    fn account(&self, json: &Value) -> Result<Account, serde_json::Error> {
        serde::Deserialize::deserialize(json).map(|account: C::Account| Account(Self::settings(account)))
    }

    fn options(&self, json: &Value) -> Result<Options, serde_json::Error> {
        serde::Deserialize::deserialize(json).map(|options: C::Options| Options(Self::settings(options)))
    }

    fn check_account(&self, account: &dyn Any) -> Vec<Problem> {
        Self::typed(account).map(C::check_account).unwrap_or_default()
    }

    fn check(&self, account: &dyn Any, options: &dyn Any, shared: &Shared) -> Vec<Problem> {
        match (Self::typed(account), Self::typed(options)) {
            (Ok(account), Ok(options)) => C::check(account, options, shared),
            // Settings of two kinds never meet: the account decides how its destinations are read.
            (Err(_), _) | (_, Err(_)) => Vec::new(),
        }
    }

    fn open(&self, account: &dyn Any) -> Result<Arc<dyn Any + Send + Sync>, Error> {
        Ok(Arc::new(C::open(Self::typed(account)?)?))
    }

    fn connect(
        &self,
        connection: Arc<dyn Any + Send + Sync>,
        options: &dyn Any,
        shared: &Shared,
    ) -> Result<Arc<dyn Destination>, Error> {
        let connection: Arc<C::Connection> = connection.downcast().map_err(|_| Error::Kind { kind: C::SPEC.kind })?;
        C::connect(&connection, Self::typed(options)?, shared)
    }
}
