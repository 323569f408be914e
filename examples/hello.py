"""Sends one message through a local Gantry and receives it, with the official RocketMQ client."""

from rocketmq import ClientConfiguration, Credentials, FilterExpression, Message, Producer, SimpleConsumer

configuration = ClientConfiguration("127.0.0.1:8081", Credentials())
topic = "hello"

producer = Producer(configuration, (topic,))
producer.startup()
message = Message()
message.topic = topic
message.body = "Hello, Gantry".encode()
message.tag = "greeting"
receipt = producer.send(message)
print("sent", receipt.message_id)
producer.shutdown()

consumer = SimpleConsumer(configuration, "hello-group", {topic: FilterExpression("*")}, 10)
consumer.startup()
for received in consumer.receive(32, 30):
    print("received", received.message_id, received.body.decode())
    consumer.ack(received)
consumer.shutdown()
