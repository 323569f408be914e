package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

const pause = 200 * time.Millisecond // between two calls after the first of them failed

// Not tests but tools for them: a producer to stop from outside, a consumer that drains a topic.
var tools = []Scenario{
	{"produce-until-stopped", produceUntilStopped},
	{"consume-until-quiet", consumeUntilQuiet},
}

func produceUntilStopped(f *Fixture) {
	producer := f.producer()
	var stopped atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stopped.Store(true)
	}()
	var number, acked, failed atomic.Int64
	var workers sync.WaitGroup
	for range f.options.inflight {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for !stopped.Load() && f.remaining() > 0 {
				mine := number.Add(1)
				message := &rmq.Message{Topic: f.topic, Body: fmt.Append(nil, mine)}
				receipts, err := producer.Send(context.Background(), message)
				if err != nil {
					failed.Add(1)
					say("ERROR", mine, err)
					time.Sleep(pause)
					continue
				}
				acked.Add(1)
				say("ACKED", mine, receipts[0].MessageID)
			}
		}()
	}
	workers.Wait()
	f.counts = fmt.Sprintf("acked=%d errors=%d", acked.Load(), failed.Load())
}

func consumeUntilQuiet(f *Fixture) {
	topic := either(f.options.topic, f.nameFor("produce-until-stopped"))
	quiet := f.options.quiet
	consumer := f.simpleConsumer(Subscription{topic: topic, await: max(time.Second, min(await, quiet))})
	received, failed, heard := 0, 0, time.Now()
	for time.Since(heard) < quiet {
		check(f.remaining() > 0, "no %v of quiet within %v", quiet, f.options.timeout)
		messages, err := receive(consumer, invisible)
		for _, message := range messages {
			say("RECEIVED", string(message.GetBody()), message.GetMessageId(), message.GetDeliveryAttempt())
			received++
			heard = time.Now()
		}
		if err == nil {
			err = ackAll(consumer, messages)
		}
		if err != nil {
			failed++
			heard = time.Now() // a server that fails is not a quiet one
			say("ERROR", err)
			time.Sleep(pause)
		}
	}
	f.counts = fmt.Sprintf("received=%d errors=%d", received, failed)
}

// ackAll acknowledges the messages at once; it returns the errors.
func ackAll(consumer rmq.SimpleConsumer, messages []*rmq.MessageView) error {
	problems := make([]error, len(messages))
	var calls sync.WaitGroup
	for i, message := range messages {
		calls.Add(1)
		go func() {
			defer calls.Done()
			problems[i] = consumer.Ack(context.Background(), message)
		}()
	}
	calls.Wait()
	return errors.Join(problems...)
}

// say prints one line.
func say(words ...any) {
	fmt.Println(oneLine(fmt.Sprintln(words...)))
}
