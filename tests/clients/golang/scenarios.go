package main

import (
	"fmt"
	"slices"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

const mib = 1 << 20

// What they mean is in ../README.md.
var scenarios = []Scenario{
	{"send-receive-ack", sendReceiveAck},
	{"push-consume", pushConsume},
	{"tag-filter", tagFilter},
	{"redelivery", redelivery},
	{"change-invisible", changeInvisible},
	{"dead-letter", deadLetter},
	{"push-retry", pushRetry},
	{"large-body", largeBody},
	{"empty-poll", emptyPoll},
}

func sendReceiveAck(f *Fixture) {
	producer := f.producer()
	consumer := f.simpleConsumer(Subscription{})
	const count = 20
	byID := map[string]*Sent{}
	for i := range count {
		sent := f.send(producer, Sent{
			body:       fmt.Appendf(nil, "body %d", i),
			tag:        "tag",
			keys:       []string{fmt.Sprintf("key-%d", i), fmt.Sprintf("other-key-%d", i)},
			properties: map[string]string{"index": fmt.Sprint(i), "unicode": "grüße, 世界 🚀", "empty": ""},
		})
		byID[sent.id] = sent
	}
	expect("number of different message ids", len(byID), count)
	for _, message := range f.receive(consumer, count, invisible) {
		sent, known := byID[message.GetMessageId()]
		check(known, "message id %s is unknown or came twice", message.GetMessageId())
		delete(byID, sent.id)
		sent.verify(message, 1)
		expect("topic", message.GetTopic(), f.topic)
		f.ack(consumer, message)
	}
	f.expectNothing(consumer)
}

func pushConsume(f *Fixture) {
	inbox := f.pushConsumer(func(*rmq.MessageView) bool { return true })
	producer := f.producer()
	var sent []string
	for i := range 50 {
		sent = append(sent, f.send(producer, Sent{body: fmt.Appendf(nil, "body %d", i)}).id)
	}
	slices.Sort(sent)
	expect("delivered ids", ids(inbox.waitFor(len(sent), f)), sent)
}

func tagFilter(f *Fixture) {
	producer := f.producer()
	consumer := f.simpleConsumer(Subscription{tags: "a || b"})
	var wanted []string
	for i := range 3 {
		for _, tag := range []string{"a", "b", "c", ""} {
			sent := f.send(producer, Sent{body: fmt.Appendf(nil, "%s %d", tag, i), tag: tag})
			if tag == "a" || tag == "b" {
				wanted = append(wanted, sent.id)
			}
		}
	}
	slices.Sort(wanted)
	messages := f.receive(consumer, len(wanted), invisible)
	expect("received ids", ids(messages), wanted)
	for _, message := range messages {
		f.ack(consumer, message)
	}
	f.expectNothing(consumer)
}

func redelivery(f *Fixture) {
	consumer := f.simpleConsumer(Subscription{})
	sent := f.send(f.producer(), Sent{body: []byte("unacknowledged at first")})
	sent.verify(f.receiveOne(consumer, 10*time.Second), 1)
	received := time.Now()
	again := f.receiveOne(consumer, invisible)
	waited := time.Since(received)
	sent.verify(again, 2)
	check(waited >= 9500*time.Millisecond, "redelivered after %v, invisible for 10 s", waited)
	f.ack(consumer, again)
	f.expectNothing(consumer)
}

func changeInvisible(f *Fixture) {
	consumer := f.simpleConsumer(Subscription{})
	sent := f.send(f.producer(), Sent{body: []byte("shortened")})
	message := f.receiveOne(consumer, 60*time.Second)
	sent.verify(message, 1)
	changed := time.Now()
	must(consumer.ChangeInvisibleDuration(message, time.Second))
	again := f.receiveOne(consumer, invisible)
	waited := time.Since(changed)
	sent.verify(again, 2)
	check(waited <= 10*time.Second, "redelivered after %v, invisible for 1 s", waited)
	f.ack(consumer, again)
	f.expectNothing(consumer)
}

func deadLetter(f *Fixture) {
	consumer := f.simpleConsumer(Subscription{})
	sent := f.send(f.producer(), Sent{
		body:       []byte("never acknowledged"),
		properties: map[string]string{"kept": "yes"},
	})
	for _, attempt := range []int32{1, 2} {
		message := f.receiveOne(consumer, invisible)
		sent.verify(message, attempt)
		must(consumer.ChangeInvisibleDuration(message, time.Second))
	}
	f.expectNothing(consumer)
	deadLetters := "%DLQ%" + f.group
	reader := f.simpleConsumer(Subscription{topic: deadLetters, group: f.topic + "-reader"})
	dead := f.receiveOne(reader, invisible)
	expect("message id of the dead letter", dead.GetMessageId(), sent.id)
	expect("topic of the dead letter", dead.GetTopic(), deadLetters)
	expect("property of the dead letter", dead.GetProperties()["kept"], "yes")
	sent.verifyBody(dead)
	f.ack(reader, dead)
	f.expectNothing(reader)
	f.expectNothing(consumer)
}

func pushRetry(f *Fixture) {
	inbox := f.pushConsumer(func(message *rmq.MessageView) bool { return message.GetDeliveryAttempt() > 1 })
	sent := f.send(f.producer(), Sent{body: []byte("refused at first")})
	deliveries := inbox.waitFor(2, f)
	expect("number of deliveries", len(deliveries), 2)
	sent.verify(deliveries[0], 1)
	sent.verify(deliveries[1], 2)
}

func largeBody(f *Fixture) {
	producer := f.producer()
	consumer := f.simpleConsumer(Subscription{})
	for _, size := range []int{mib, mib * 39 / 10} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i % 251)
		}
		sent := f.send(producer, Sent{body: body})
		message := f.receiveOne(consumer, invisible)
		sent.verify(message, 1)
		f.ack(consumer, message)
	}
}

func emptyPoll(f *Fixture) {
	consumer := f.simpleConsumer(Subscription{await: 5 * time.Second})
	asked := time.Now()
	f.expectNothing(consumer)
	waited := time.Since(asked)
	check(waited >= 3*time.Second && waited <= 10*time.Second, "an empty receive took %v, asked to wait 5 s", waited)
}
