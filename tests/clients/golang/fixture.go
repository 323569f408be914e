package main

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
)

const (
	await     = 3 * time.Second  // how long a receive waits for a message
	invisible = 30 * time.Second // how long a received message stays with its receiver
	batch     = 32
	watch     = time.Second // how long a push consumer is watched for a delivery too many
)

// Version 1 of the client-made ids: 01, MAC address, process, time, counter.
var messageID = regexp.MustCompile("^01[0-9A-Fa-f]{32}$")

// failure: the server did not do what the scenario asks for.
type failure string

// skip: the client lacks what the scenario needs.
type skip string

func check(condition bool, format string, values ...any) {
	if !condition {
		panic(failure(fmt.Sprintf(format, values...)))
	}
}

func expect[T any](what string, actual, expected T) {
	check(reflect.DeepEqual(actual, expected), "%s is %#v, expected %#v", what, actual, expected)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Sent is a message as it was sent.
type Sent struct {
	body       []byte
	tag        string // "" is none
	keys       []string
	properties map[string]string
	id         string
}

// verify checks that `message` is this one, delivered for the `attempt`th time.
func (s *Sent) verify(message *rmq.MessageView, attempt int32) {
	expect("message id", message.GetMessageId(), s.id)
	expect("tag of "+s.id, tagOf(message), s.tag)
	expect("keys of "+s.id, slices.Sorted(slices.Values(message.GetKeys())), slices.Sorted(slices.Values(s.keys)))
	expect("properties of "+s.id, message.GetProperties(), s.properties)
	expect("delivery attempt of "+s.id, message.GetDeliveryAttempt(), attempt)
	s.verifyBody(message)
}

func (s *Sent) verifyBody(message *rmq.MessageView) {
	check(bytes.Equal(message.GetBody(), s.body), "body of %s (%d bytes) came back changed", s.id, len(s.body))
}

func tagOf(message *rmq.MessageView) string {
	if tag := message.GetTag(); tag != nil {
		return *tag
	}
	return ""
}

// Inbox keeps what a push consumer was given; `accept` decides whether a message counts as consumed.
type Inbox struct {
	accept   func(*rmq.MessageView) bool
	mutex    sync.Mutex
	messages []*rmq.MessageView
	arrival  chan struct{}
}

func (i *Inbox) consume(message *rmq.MessageView) rmq.ConsumerResult {
	i.mutex.Lock()
	i.messages = append(i.messages, message)
	i.mutex.Unlock()
	select {
	case i.arrival <- struct{}{}:
	default: // somebody has yet to look at an earlier one
	}
	if i.accept(message) {
		return rmq.SUCCESS
	}
	return rmq.FAILURE
}

// waitFor waits until `count` deliveries came, and a moment longer for one too many; it returns all.
func (i *Inbox) waitFor(count int, f *Fixture) []*rmq.MessageView {
	messages := i.hold(count, f.remaining())
	check(len(messages) >= count, "%d of %d deliveries came", len(messages), count)
	return i.hold(count+1, watch)
}

// hold returns as soon as `count` deliveries are here, after `limit` at the latest.
func (i *Inbox) hold(count int, limit time.Duration) []*rmq.MessageView {
	late := time.After(limit)
	for {
		i.mutex.Lock()
		messages := slices.Clone(i.messages)
		i.mutex.Unlock()
		if len(messages) >= count {
			return messages
		}
		select {
		case <-i.arrival:
		case <-late:
			return messages
		}
	}
}

// Client is what producers and consumers have in common.
type Client interface {
	Start() error
	GracefulStop() error
}

// Fixture is what a scenario works with: names, clients that are closed after it, and waits that end.
type Fixture struct {
	options  Options
	topic    string
	group    string
	counts   string // what a tool did, for its result line
	deadline time.Time
	clients  []Client
}

func newFixture(scenario string, options Options) *Fixture {
	f := &Fixture{options: options, deadline: time.Now().Add(options.timeout)}
	f.topic = either(options.topic, f.nameFor(scenario))
	f.group = either(options.group, f.nameFor(scenario)+"-group")
	return f
}

func (f *Fixture) nameFor(scenario string) string {
	return fmt.Sprintf("%s-golang-%s", f.options.prefix, scenario)
}

// remaining is what is left of the scenario's time.
func (f *Fixture) remaining() time.Duration {
	return time.Until(f.deadline)
}

func (f *Fixture) producer() rmq.Producer {
	producer, err := rmq.NewProducer(f.config(""), rmq.WithTopics(f.topic))
	must(err)
	f.start(producer)
	return producer
}

// Subscription says what a simple consumer reads; what is left out comes from the scenario.
type Subscription struct {
	topic string
	group string
	tags  string
	await time.Duration
}

func (f *Fixture) simpleConsumer(s Subscription) rmq.SimpleConsumer {
	filter := rmq.NewFilterExpression(either(s.tags, "*"))
	consumer, err := rmq.NewSimpleConsumer(
		f.config(either(s.group, f.group)),
		rmq.WithSimpleSubscriptionExpressions(map[string]*rmq.FilterExpression{either(s.topic, f.topic): filter}),
		rmq.WithSimpleAwaitDuration(either(s.await, await)),
	)
	must(err)
	f.start(consumer)
	return consumer
}

// pushConsumer starts a push consumer on the scenario's topic; it returns its inbox.
func (f *Fixture) pushConsumer(accept func(*rmq.MessageView) bool) *Inbox {
	inbox := &Inbox{accept: accept, arrival: make(chan struct{}, 1)}
	consumer, err := rmq.NewPushConsumer(
		f.config(f.group),
		rmq.WithPushSubscriptionExpressions(map[string]*rmq.FilterExpression{f.topic: rmq.SUB_ALL}),
		rmq.WithPushMessageListener(&rmq.FuncMessageListener{Consume: inbox.consume}),
	)
	must(err)
	f.start(consumer)
	return inbox
}

func (f *Fixture) config(group string) *rmq.Config {
	return &rmq.Config{
		Endpoint:      f.options.endpoint,
		ConsumerGroup: group,
		Credentials:   &credentials.SessionCredentials{},
	}
}

func (f *Fixture) start(client Client) {
	must(client.Start())
	f.clients = append(f.clients, client)
}

// send sends one message to the scenario's topic and checks its receipt.
func (f *Fixture) send(producer rmq.Producer, sent Sent) *Sent {
	message := &rmq.Message{Topic: f.topic, Body: sent.body}
	if sent.tag != "" {
		message.SetTag(sent.tag)
	}
	message.SetKeys(sent.keys...)
	for name, value := range sent.properties {
		message.AddProperty(name, value)
	}
	receipts, err := producer.Send(context.Background(), message)
	must(err)
	expect("number of receipts", len(receipts), 1)
	sent.id = receipts[0].MessageID
	check(messageID.MatchString(sent.id), "message id %q is not of version 1", sent.id)
	return &sent
}

// receive receives until `count` messages came; more are a failure.
func (f *Fixture) receive(consumer rmq.SimpleConsumer, count int, invisible time.Duration) []*rmq.MessageView {
	var messages []*rmq.MessageView
	for len(messages) < count {
		check(f.remaining() > 0, "%d of %d messages came", len(messages), count)
		messages = append(messages, poll(consumer, invisible)...)
	}
	expect("number of messages", len(messages), count)
	return messages
}

func (f *Fixture) receiveOne(consumer rmq.SimpleConsumer, invisible time.Duration) *rmq.MessageView {
	return f.receive(consumer, 1, invisible)[0]
}

func (f *Fixture) ack(consumer rmq.SimpleConsumer, message *rmq.MessageView) {
	must(consumer.Ack(context.Background(), message))
}

func (f *Fixture) expectNothing(consumer rmq.SimpleConsumer) {
	expect("what a further receive finds", ids(poll(consumer, invisible)), nil)
}

// close shuts the clients down, the last one first.
func (f *Fixture) close() {
	slices.Reverse(f.clients)
	for _, client := range f.clients {
		must(client.GracefulStop())
	}
}

// poll receives once, for a client to which "no message" is an error.
func poll(consumer rmq.SimpleConsumer, invisible time.Duration) []*rmq.MessageView {
	messages, err := receive(consumer, invisible)
	must(err)
	return messages
}

func receive(consumer rmq.SimpleConsumer, invisible time.Duration) ([]*rmq.MessageView, error) {
	messages, err := consumer.Receive(context.Background(), batch, invisible)
	if status, ok := rmq.AsErrRpcStatus(err); ok && status.Code == int32(v2.Code_MESSAGE_NOT_FOUND) {
		return nil, nil
	}
	return messages, err
}

// ids returns the sorted message ids.
func ids(messages []*rmq.MessageView) []string {
	var ids []string
	for _, message := range messages {
		ids = append(ids, message.GetMessageId())
	}
	slices.Sort(ids)
	return ids
}

// either returns the first of both that is not empty.
func either[T comparable](value, instead T) T {
	var empty T
	if value != empty {
		return value
	}
	return instead
}
