//! The controller's folder is lost, and the store beside it is there.

use crate::gantry::{Gantry, output, run};
use crate::last_line;
use gantry_proto::wire::v2::messaging_service_client::MessagingServiceClient;
use gantry_proto::wire::v2::receive_message_response::Content;
use gantry_proto::wire::v2::{self, AckMessageEntry, Code, Message, MessageQueue, Resource, SystemProperties};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

const TOPIC: &str = "orders";
const GROUP: &str = "readers";
const SENT: usize = 60;
const ACKED: usize = 25;
const HELD: usize = 5;

struct Client(MessagingServiceClient<Channel>);

impl Client {
    async fn connect(server: &Gantry) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
        Client(MessagingServiceClient::new(endpoint.connect().await.unwrap()))
    }

    async fn send(&mut self, id: &str) {
        let system_properties = SystemProperties {
            message_id: id.to_owned(),
            message_type: v2::MessageType::Normal as i32,
            ..Default::default()
        };
        let message = Message {
            topic: resource(TOPIC),
            system_properties: Some(SystemProperties { tag: Some("red".to_owned()), ..system_properties }),
            body: format!("body of {id}").into_bytes().into(),
            ..Default::default()
        };
        let request = of_client(v2::SendMessageRequest { messages: vec![message] });
        let reply = self.0.send_message(request).await.unwrap().into_inner();
        assert_eq!(reply.status.unwrap().code(), Code::Ok, "{id}");
    }

    /// Some messages, hidden for so many seconds: id and receipt handle.
    async fn receive(&mut self, most: usize, hidden: i64) -> Vec<(String, String)> {
        let request = v2::ReceiveMessageRequest {
            group: resource(GROUP),
            message_queue: Some(MessageQueue { topic: resource(TOPIC), ..Default::default() }),
            batch_size: most as i32,
            invisible_duration: Some(prost_types::Duration { seconds: hidden, nanos: 0 }),
            long_polling_timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        let mut stream = self.0.receive_message(of_client(request)).await.unwrap().into_inner();
        let mut received = Vec::new();
        while let Some(response) = stream.message().await.unwrap() {
            if let Some(Content::Message(message)) = response.content {
                let properties = message.system_properties.unwrap();
                assert_eq!(message.body, format!("body of {}", properties.message_id));
                received.push((properties.message_id, properties.receipt_handle.unwrap()));
            }
        }
        received
    }

    async fn ack(&mut self, (id, handle): &(String, String)) -> Code {
        let entry = AckMessageEntry { message_id: id.clone(), receipt_handle: handle.clone(), ..Default::default() };
        let request = v2::AckMessageRequest { group: resource(GROUP), topic: resource(TOPIC), entries: vec![entry] };
        let reply = self.0.ack_message(of_client(request)).await.unwrap().into_inner();
        reply.entries[0].status.as_ref().unwrap().code()
    }

    /// Receives until that many different ones came.
    async fn take(&mut self, count: usize, acknowledge: bool) -> BTreeMap<String, String> {
        let (begun, mut taken) = (Instant::now(), BTreeMap::new());
        // What is only held comes again while the test goes on.
        let hidden = if acknowledge { 300 } else { 20 };
        while taken.len() < count {
            assert!(begun.elapsed() < Duration::from_secs(120), "{} of {count} came", taken.len());
            for message in self.receive((count - taken.len()).min(16), hidden).await {
                if acknowledge {
                    assert_eq!(self.ack(&message).await, Code::Ok);
                }
                assert!(taken.insert(message.0.clone(), message.1).is_none(), "{} came twice", message.0);
            }
        }
        taken
    }
}

fn resource(name: &str) -> Option<Resource> {
    Some(Resource { resource_namespace: String::new(), name: name.to_owned() })
}

fn of_client<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in [("x-mq-client-id", "c"), ("x-mq-language", "JAVA"), ("x-mq-client-version", "5.2.0")] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// Runs `gantry repair controller`: exit code, standard output as JSON, standard error.
fn repair(data: &Path, more: &[&str]) -> (Option<i32>, Value, String) {
    let arguments = [&["repair", "controller", data.to_str().unwrap(), "--output", "json"], more].concat();
    let (code, stdout, stderr) = output(&arguments);
    (code, serde_json::from_str(&stdout).unwrap_or_default(), stderr)
}

fn refused(data: &Path) -> String {
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
        "--data",
        data.to_str().unwrap(),
    ];
    let (code, stderr) = run(&flags);
    assert_eq!(code, Some(1), "{stderr}");
    last_line(&stderr).to_owned()
}

/// The queues' ends: what was ever sent to the topic.
fn ends(server: &Gantry) -> u64 {
    let (topic, _) = server.admin(&format!("topic describe {TOPIC}")).unwrap();
    topic["queues"].as_array().unwrap().iter().map(|queue| queue["max_offset"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_lost_controller_is_named_and_made_again_and_its_group_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (data, folder) = (dir.path(), dir.path().join("controller"));
    let server = Gantry::start(data, &[]);
    // Numbers that the store never hears of, and one that it forgets.
    for command in ["topic create unused", "topic create orders --queues 4", "group create readers --max-attempts 3"] {
        server.admin(command).unwrap();
    }
    let mut client = Client::connect(&server).await;
    let sent: BTreeSet<String> = (0..SENT).map(|number| format!("m-{number}")).collect();
    for id in &sent {
        client.send(id).await;
    }
    let acked = client.take(ACKED, true).await;
    let held = client.take(HELD, false).await;
    drop(client);
    assert_eq!(ends(&server), SENT as u64);
    assert_eq!(server.stop("TERM").0, Some(0));

    // Whichever way it is lost, nothing begins anew.
    let saved = dir.path().join("saved");
    fs::rename(&folder, &saved).unwrap();
    for step in ["gone", "empty", "without the database"] {
        match step {
            "gone" => {}
            "empty" => fs::create_dir(&folder).unwrap(),
            _ => drop(fs::copy(saved.join("acknowledged"), folder.join("acknowledged")).unwrap()),
        }
        for _ in 0..2 {
            let line = refused(data);
            assert!(line.contains(&format!("gantry repair controller {}", data.display())), "{step}: {line}");
            assert!(!folder.join("consensus.redb").exists(), "{step}");
        }
    }
    // The store's identity is lost, too: first things first.
    for name in ["identity", "identity.copy"] {
        fs::rename(data.join("store").join(name), saved.join(name)).unwrap();
    }
    let line = refused(data);
    assert!(line.contains("gantry repair identity") && line.contains("&& gantry repair controller"), "{line}");
    let (code, _, said) = repair(data, &["--yes"]);
    assert!(code == Some(1) && said.contains("gantry repair identity"), "{said}");
    for name in ["identity", "identity.copy"] {
        fs::rename(saved.join(name), data.join("store").join(name)).unwrap();
    }

    // The store's copy of the names is lost, too.
    let (code, plan, said) = repair(data, &[]);
    assert_eq!(code, Some(0), "{said}");
    let names: Vec<_> =
        plan["topics"].as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["unused", TOPIC], "{plan}");
    fs::rename(data.join("store/names"), saved.join("names")).unwrap();
    let (code, plan, said) = repair(data, &[]);
    assert_eq!((code, &plan["done"]), (Some(0), &Value::Bool(false)), "{said}");
    assert!(!folder.join("consensus.redb").exists());
    let topics = plan["topics"].as_array().unwrap();
    let [topic] = &topics[..] else { panic!("{plan}") };
    assert_eq!((&topic["messages"], &topic["named_by"]), (&Value::from(SENT), &Value::from("nobody")), "{plan}");
    assert_eq!(topic["name"], format!("recovered-topic-{}", topic["id"]));
    let [group] = &plan["groups"].as_array().unwrap()[..] else { panic!("{plan}") };
    assert!(plan["steps"].to_string().contains("red"), "a tag says which topic it is: {plan}");

    let names = [format!("{}={TOPIC}", topic["id"]), format!("{}={GROUP}", group["id"])];
    let flags = ["--topic", &names[0], "--group", &names[1], "--yes"];
    let (code, done, said) = repair(data, &flags);
    assert_eq!((code, &done["done"]), (Some(0), &Value::Bool(true)), "{said}");
    let (code, _, said) = repair(data, &flags);
    assert!(code == Some(1) && said.contains("is whole"), "{said}");

    let server = Gantry::start(data, &[]);
    assert_eq!(ends(&server), SENT as u64, "its offsets go on");
    let mut client = Client::connect(&server).await;
    let (id, handle) = held.iter().next().unwrap();
    assert_ne!(client.ack(&(id.clone(), handle.clone())).await, Code::Ok, "who received it before");
    client.send("later").await;
    assert_eq!(ends(&server), SENT as u64 + 1);
    let rest = client.take(SENT - ACKED + 1, true).await;
    let expected: BTreeSet<String> =
        sent.iter().filter(|id| !acked.contains_key(*id)).cloned().chain(["later".to_owned()]).collect();
    assert_eq!(
        rest.into_keys().collect::<BTreeSet<_>>(),
        expected,
        "nothing is lost, and nothing acknowledged comes again"
    );
    assert_eq!(client.receive(16, 300).await, []);
    // What is made now has a number of its own.
    server.admin("topic create another").unwrap();
    let (described, _) = server.admin("topic describe another").unwrap();
    assert!(described["queues"].as_array().unwrap().iter().all(|queue| queue["max_offset"] == 0), "{described}");
    assert_eq!(server.stop("TERM").0, Some(0));
    assert_eq!(output(&["inspect", "verify", data.to_str().unwrap()]).0, Some(0));
    // And once more, as any other.
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
}

#[test]
fn a_controller_that_is_made_again_has_the_names_types_and_policies_that_the_store_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Gantry::start(data, &[]);
    for command in [
        "topic create orders --type fifo --queues 3",
        "topic create gone",
        "topic delete gone",
        "group create readers --fifo --max-attempts 3 --backoff 1s,5s",
    ] {
        server.admin(command).unwrap();
    }
    let asked = |server: &Gantry| {
        let told = |what: &str, name: &str, fields: &[&str]| {
            let (told, _) = server.admin(&format!("{what} describe {name}")).unwrap();
            fields.iter().map(|field| told[what][field].clone()).collect::<Vec<Value>>()
        };
        let topic = told("topic", "orders", &["name", "type", "queue_count"]);
        [topic, told("group", "readers", &["name", "fifo", "max_attempts", "backoff"])]
    };
    let before = asked(&server);
    assert_eq!(server.stop("TERM").0, Some(0));
    fs::remove_dir_all(data.join("controller")).unwrap();
    let (code, made, said) = repair(data, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let [topic] = &made["topics"].as_array().unwrap()[..] else { panic!("{made}") };
    assert_eq!((&topic["name"], &topic["named_by"], &topic["queues"]), (&"orders".into(), &"store".into(), &3.into()));
    let server = Gantry::start(data, &[]);
    assert_eq!(asked(&server), before);
    assert!(before.iter().flatten().all(|field| !field.is_null()), "{before:?}");
    assert_eq!(server.stop("TERM").0, Some(0));
}

#[test]
fn a_member_of_a_cluster_that_lost_its_folder_is_told_how_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listen, members) = (format!("127.0.0.1:{port}"), format!("2=127.0.0.1:{port}"));
    let token = dir.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let flags = [
        "--token-file",
        token.to_str().unwrap(),
        "--controller-listen",
        &listen,
        "--controller-id",
        "2",
        "--controllers",
        &members,
        "--ops-listen",
        "127.0.0.1:0",
        "--data",
        data,
    ];
    let server = Gantry::start_role("controller", &flags);
    assert_eq!(server.stop("TERM").0, Some(0));
    assert_eq!(Gantry::start_role("controller", &flags).stop("TERM").0, Some(0));
    fs::remove_dir_all(dir.path().join("controller")).unwrap();
    for _ in 0..2 {
        let (code, stderr) = run(&[&["controller"], &flags[..]].concat());
        assert_eq!(code, Some(1), "{stderr}");
        let line = last_line(&stderr);
        assert!(line.contains("gantry admin cluster remove-controller 2"), "{line}");
        assert!(line.contains("gantry admin cluster add-controller"), "{line}");
        assert!(!dir.path().join("controller").exists(), "nothing was made");
    }
}
