// Runs named scenarios with the official Go client; the contract is in ../README.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

// How much longer than its own waits a scenario may take before it counts as stuck.
const grace = 15 * time.Second

// Options are the flags of all scenarios.
type Options struct {
	endpoint  string
	tls       bool
	prefix    string
	timeout   time.Duration
	topic     string
	group     string
	inflight  int
	quiet     time.Duration
	scenarios []string
}

// Scenario checks one thing, and panics with a failure, a skip or an error of the client.
type Scenario struct {
	name string
	run  func(*Fixture)
}

func main() {
	options := parse()
	rmq.EnableSsl = options.tls
	names := options.scenarios
	if len(names) == 1 && names[0] == "all" {
		names = nil
		for _, scenario := range scenarios {
			names = append(names, scenario.name)
		}
	}
	failed := false
	for _, name := range names {
		line := run(name, options)
		fmt.Println(line)
		failed = failed || strings.HasPrefix(line, "FAIL")
	}
	if failed {
		os.Exit(1)
	}
}

func parse() Options {
	options := Options{timeout: 30 * time.Second, quiet: 5 * time.Second}
	flag.StringVar(&options.endpoint, "endpoint", "", "`HOST:PORT` of the server")
	flag.BoolVar(&options.tls, "tls", false, "use TLS")
	flag.String("ca", "", "certificate file to trust; this client trusts any")
	flag.StringVar(&options.prefix, "prefix", "e2e", "first part of topic and group names")
	flag.Func("timeout", "`seconds` that a scenario may wait (default 30)", seconds(&options.timeout))
	flag.StringVar(&options.topic, "topic", "", "topic to use in place of the derived one")
	flag.StringVar(&options.group, "group", "", "consumer group to use in place of the derived one")
	flag.IntVar(&options.inflight, "inflight", 8, "sends at a time")
	flag.Func("quiet", "`seconds` without a message that end a consumer (default 5)", seconds(&options.quiet))
	flag.Parse()
	options.scenarios = flag.Args()
	if options.endpoint == "" || len(options.scenarios) == 0 {
		fmt.Fprintln(os.Stderr, "needed: --endpoint HOST:PORT SCENARIO...")
		os.Exit(2)
	}
	return options
}

// seconds parses a flag given as a number of seconds.
func seconds(value *time.Duration) func(string) error {
	return func(text string) (err error) {
		*value, err = time.ParseDuration(text + "s")
		return err
	}
}

// run runs one scenario; it returns its result line.
func run(name string, options Options) string {
	scenario := find(name)
	if scenario == nil {
		return fmt.Sprintf("FAIL %s unknown scenario", name)
	}
	started := time.Now()
	fixture := newFixture(name, options)
	problem := within(options.timeout+grace, func() { scenario(fixture) })
	closeProblem := within(options.timeout+grace, fixture.close)
	if problem == nil {
		problem = closeProblem
	}
	if problem == nil {
		return strings.TrimSpace(fmt.Sprintf("PASS %s %dms %s", name, time.Since(started).Milliseconds(), fixture.counts))
	}
	if reason, ok := problem.(skip); ok {
		return fmt.Sprintf("SKIP %s %s", name, reason)
	}
	return fmt.Sprintf("FAIL %s %s", name, oneLine(problem))
}

func find(name string) func(*Fixture) {
	for _, scenario := range append(scenarios, tools...) {
		if scenario.name == name {
			return scenario.run
		}
	}
	return nil
}

// within returns what `call` panics with, if it does; a call that takes too long is left to itself.
func within(limit time.Duration, call func()) any {
	outcome := make(chan any, 1)
	go func() {
		defer func() { outcome <- recover() }()
		call()
	}()
	select {
	case problem := <-outcome:
		return problem
	case <-time.After(limit):
		return failure(fmt.Sprintf("stuck for %v", limit))
	}
}

func oneLine(value any) string {
	return strings.Join(strings.Fields(fmt.Sprint(value)), " ")
}
