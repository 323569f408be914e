//! Every option, once. Bounds that a tier also knows are held to its constants by a test.

use super::members::ControllerMembers;
use super::option::options;
use super::value::{ByteSize, FlushMode, LogFilter, LogFormat, Percent, ProxyProtocolMode};
use gantry_proto::model::{HostPort, StoreGroupName};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

options! {
    /// The port that clients connect to.
    listen: Listen {
        /// Address and port to listen on. 0.0.0.0:8081 takes connections from other machines.
        address: SocketAddr = "127.0.0.1:8081" { short_flag: Some("listen") };
        /// Host and port that routes tell clients to connect to.
        /// Not set: routes repeat whatever a client has connected to, which is right in most networks.
        advertised: Option<HostPort> = "" { example: "mq.example.com:8081", short_flag: Some("advertise") };
        /// Whether connections begin with a header of the PROXY protocol (version 1 or 2), by which a load balancer tells where
        /// its client is.
        /// off: none does. detect: one that does is understood; limits per address count the load balancer's.
        /// require: all do, and limits per address count the client's. For listeners that only load balancers reach.
        proxy_protocol: ProxyProtocolMode = "detect";
        /// Open client connections; more are turned away. What the system's limit of open files does not allow is not taken.
        connections_max: u32 = "10000" { range: Some(("1", "1000000")) };
        /// Open connections of one address; more are turned away. Raise it where all clients come through one address.
        connections_per_peer_max: u32 = "5000" { range: Some(("1", "1000000")) };
        /// Calls that one connection may have open. A consumer has one waiting receive for each topic, or queue.
        streams_max: u32 = "2048" { range: Some(("16", "65535")) };
        /// How long a new connection may take until it speaks HTTP/2, a TLS handshake included.
        handshake_timeout: Duration = "10s" { range: Some(("100ms", "10m")) };
        /// A connection without an open call for this long is closed.
        idle_timeout: Duration = "120s" { range: Some(("1s", "24h")) };
        /// Certificate chain, a PEM file, the server's own certificate first. Goes with tls_key.
        /// Neither set: a self-signed certificate, made at the first start and kept in the data folder.
        tls_certificate: Option<PathBuf> = "" { example: "/etc/gantry/tls.crt" };
        /// Private key of tls_certificate, a PEM file.
        tls_key: Option<PathBuf> = "" { example: "/etc/gantry/tls.key" };
        /// How long running calls may take to finish when the server stops.
        drain_timeout: Duration = "10s" { range: Some(("0s", "10m")) };
    }

    /// The port for operators' calls: `gantry admin`.
    admin: Admin {
        /// Address and port to listen on. Whoever can connect to it may create, change and delete everything: nobody is asked
        /// for a password. Do not open it to networks where that would be wrong.
        listen: SocketAddr = "127.0.0.1:8085";
    }

    /// The port for operators: /livez, /readyz and /metrics over plain HTTP.
    ops: Ops {
        /// Address and port to listen on.
        address: SocketAddr = "127.0.0.1:8082" { short_flag: Some("ops-listen") };
    }

    /// Where state is kept.
    data: Data {
        /// Folder for everything that must survive a restart. Created when missing. One server at a time uses it.
        /// Default: /var/lib/gantry when it is writable, else $XDG_DATA_HOME/gantry or ~/.local/share/gantry.
        dir: PathBuf = "/var/lib/gantry" { short_flag: Some("data") };
    }

    /// A cluster: proxies, stores and controllers as processes of their own. A standalone server needs none of this.
    cluster: Cluster {
        /// The members of the controller, each with its number. The same list for every process of the cluster.
        controllers: Option<ControllerMembers> = "" { example: "1=gantry-1:8083, 2=gantry-2:8083, 3=gantry-3:8083", short_flag: Some("controllers") };
        /// File with a secret of at least 16 bytes that every process of the cluster knows: whoever does not know it can
        /// neither read, write nor join. It travels unencrypted: for networks that nobody listens to. Else use tls_ca.
        token_file: Option<PathBuf> = "" { example: "/etc/gantry/cluster-token", short_flag: Some("token-file") };
        /// mTLS between the processes: the certificates that may sign a process's certificate, a PEM file. Goes with
        /// cluster.tls_certificate and cluster.tls_key, which have to name the host that others connect to.
        tls_ca: Option<PathBuf> = "" { example: "/etc/gantry/cluster/ca.crt" };
        /// This process's certificate chain, a PEM file, for serving and for connecting.
        tls_certificate: Option<PathBuf> = "" { example: "/etc/gantry/cluster/tls.crt" };
        /// Private key of cluster.tls_certificate, a PEM file.
        tls_key: Option<PathBuf> = "" { example: "/etc/gantry/cluster/tls.key" };
    }

    /// A member of the controller (`gantry controller`).
    controller: Controller {
        /// Its number in cluster.controllers.
        id: u32 = "1" { range: Some(("1", "4294967295")) };
        /// Address and port that the processes of the cluster connect to.
        listen: SocketAddr = "127.0.0.1:8083";
        /// Join a controller that is at work: start without a vote and wait for `gantry admin cluster add-controller`.
        /// Not set: a member with an empty data folder founds the cluster together with the others of cluster.controllers.
        join: bool = "false";
        /// Time between the signs of life of the leading member.
        heartbeat_interval: Duration = "250ms" { range: Some(("20ms", "10s")) };
        /// How long a member hears nothing before it stands for election: between this and twice this.
        election_timeout: Duration = "1s" { range: Some(("100ms", "60s")) };
        /// How long a store leads its group after the controller last confirmed it. When it ends, the store refuses
        /// everything, and another replica may lead.
        lease: Duration = "3s" { range: Some(("500ms", "10m")) };
        /// Whether the lease of a store whose group has no other replica in sync ends, too.
        /// false: it goes on while the controller is away; nobody else could take over.
        lease_only_replica: bool = "false";
    }

    /// How messages are kept.
    store: Store {
        /// The store group that this process serves in a cluster (`gantry store`). Its data folder serves no other.
        group: StoreGroupName = "store-1" { short_flag: Some("group") };
        /// Address and port that proxies connect to.
        listen: SocketAddr = "127.0.0.1:8084";
        /// Host and port that proxies are told to connect to. Not set: store.listen.
        advertised: Option<HostPort> = "" { example: "gantry-store-1:8084" };
        /// When a change is acknowledged.
        /// sync: after it reached the disk; it survives a power failure.
        /// async: after it reached the operating system. Faster, but acknowledged messages can be lost in a power
        /// failure or a crash of the operating system, never in a crash of this process.
        flush: FlushMode = "sync" { short_flag: Some("flush") };
        /// Size of one file of the log, and the unit in which old messages are dropped.
        segment_bytes: ByteSize = "1GiB" { range: Some(("16MiB", "4GiB")) };
        /// How long messages are kept, consumed or not.
        retention: Duration = "72h" { range: Some(("1m", "87600h")) };
        /// Bytes of log to keep; older messages are dropped before their time. Not set: as many as the disk holds.
        retention_bytes: Option<ByteSize> = "" { example: "200GiB", range: Some(("32MiB", "1024TiB")) };
        /// Percent of the disk in use from which on the oldest messages are dropped before their time, consumed or not.
        /// Not set: none are; new messages are refused when the disk is full.
        retention_watermark: Option<Percent> = "" { example: "85", range: Some(("10", "98")) };
        /// Percent of the disk in use from which on new messages are refused.
        disk_watermark: Percent = "90" { range: Some(("20", "99")) };
        /// Start although a part of the log is missing (a file is gone or was cut), and go on without it: its messages are
        /// lost. For one start, after reading what is missing; then take it away again.
        accept_missing_log: bool = "false";
        /// Time between checkpoints. A restart reads the log written since the last one.
        checkpoint_interval: Duration = "5s" { range: Some(("1s", "10m")) };
        /// Delivered and unacknowledged messages that a group may have of one topic; then it receives nothing more.
        inflight_max: u32 = "100000" { range: Some(("1", "10000000")) };
        /// How long a message id is remembered per topic, so that a producer's retry is not stored twice. 0s: a retry whose
        /// first attempt was stored is stored again.
        dedup_window: Duration = "10m" { range: Some(("0s", "24h")) };
        /// Memory for remembered message ids, about 12 bytes each. When it is full the oldest are forgotten before their
        /// time, and the log says so. It is taken only as it is needed.
        dedup_memory: ByteSize = "512MiB" { range: Some(("1MiB", "64GiB")) };
    }

    /// Topics.
    topics: Topics {
        /// Create a topic when a client asks for it for the first time. It takes messages of every type. A misspelt name makes
        /// a topic, too: its producer hears of no error, and nobody consumes from it.
        /// Not set: standalone does, a proxy of a cluster does not.
        auto_create: Option<bool> = "" { example: "true" };
        /// Queues of a topic that is created without saying how many.
        auto_create_queues: u32 = "8" { range: Some(("1", "4096")) };
    }

    /// Consumer groups.
    groups: Groups {
        /// Create a group when it consumes for the first time. A misspelt name makes a group, too, which gets every message
        /// once more.
        /// Not set: standalone does, a proxy of a cluster does not.
        auto_create: Option<bool> = "" { example: "true" };
        /// Deliveries of a message, the first included, before it goes to the group's dead-letter topic.
        /// For groups that are created without saying how many.
        max_attempts: u32 = "17" { range: Some(("1", "10000")) };
    }

    /// What a client may ask for.
    limits: Limits {
        /// Shortest time for which a consumer may hide a received message.
        invisible_duration_min: Duration = "10s" { range: Some(("10ms", "12h")) };
        /// Memory that all clients together may make the server hold: messages that arrive and leave, open calls,
        /// connections. Beyond that they are told to come back later.
        /// Not set: a quarter of the memory that this process may use, at least 256MiB.
        memory: Option<ByteSize> = "" { example: "1GiB", range: Some(("64MiB", "1024TiB")) };
        /// Percent of it that the clients of one address may have.
        memory_per_peer: Percent = "50" { range: Some(("1", "100")) };
        /// How long a request may take to arrive once its call is there.
        request_timeout: Duration = "30s" { range: Some(("100ms", "10m")) };
        /// How long a client may take to read the next part of an answer; then the answer is dropped.
        read_timeout: Duration = "60s" { range: Some(("100ms", "10m")) };
        /// How long a client's telemetry stream may be without settings.
        settings_timeout: Duration = "30s" { range: Some(("1s", "10m")) };
        /// Clients that one proxy knows at a time; more are told to come back later.
        sessions_max: u32 = "50000" { range: Some(("1", "10000000")) };
        /// Topics and consumer groups that are created on first use, per second in the long run; ten seconds' worth may come
        /// at once.
        auto_create_rate: u32 = "20" { range: Some(("1", "100000")) };
        /// With so many topics no more are created on first use, and with so many groups no more groups. Operators may
        /// create more.
        auto_create_max: u32 = "10000" { range: Some(("1", "10000000")) };
        /// Open telemetry streams. Each client has one.
        telemetry_streams_max: u32 = "20000" { range: Some(("1", "10000000")) };
    }

    /// Messages about the server itself, on standard error.
    log: Log {
        /// error, warn, info, debug or trace; also per module, such as "info,gantry_store=debug".
        level: LogFilter = "info" { short_flag: Some("log-level") };
        /// text for people, json (one object a line) for machines.
        format: LogFormat = "text" { short_flag: Some("log-format") };
    }
}
