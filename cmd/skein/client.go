package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaFlags are the flags of commands that speak the Kafka protocol to a broker.
type kafkaFlags struct {
	bootstrap string
	timeout   time.Duration
	json      bool
}

func (f *kafkaFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&f.bootstrap, "bootstrap", "b", "127.0.0.1:9092", "brokers to ask first, separated by commas")
	cmd.PersistentFlags().DurationVar(&f.timeout, "timeout", 30*time.Second, "give up after this long")
	cmd.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
}

// with runs fn with an admin client.
func (f *kafkaFlags) with(ctx context.Context, fn func(context.Context, *kadm.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(f.bootstrap, ",")...), kgo.ClientID("skein-cli"),
		kgo.RetryTimeout(f.timeout), kgo.RequestRetries(5))
	if err != nil {
		return usageError{fmt.Errorf("bootstrap %s: %w", f.bootstrap, err)}
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return fmt.Errorf("reach a broker at %s: %w", f.bootstrap, err)
	}
	return fn(ctx, kadm.NewClient(client))
}

// refusesValue reports whether a broker found something wrong with what it was told, and did nothing.
func refusesValue(err error) bool {
	for _, e := range []error{
		kerr.InvalidTopicException, kerr.InvalidPartitions, kerr.InvalidReplicationFactor, kerr.InvalidConfig, kerr.InvalidRequest, kerr.InvalidGroupID,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// markRefused marks what a broker refused for its values.
func markRefused(err error) error {
	if refusesValue(err) {
		return usageError{err}
	}
	return err
}

// opsFlags are the flags of commands that speak to a broker's operators' API (HTTP).
type opsFlags struct {
	http    string
	timeout time.Duration
	json    bool
}

func (f *opsFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.http, "http", "127.0.0.1:9644", "HTTP address of a broker")
	cmd.PersistentFlags().DurationVar(&f.timeout, "timeout", 30*time.Second, "give up after this long")
	cmd.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
}

// call sends a request to the operators' API and decodes the JSON answer into out. A refusal
// carries the broker's words.
func (f *opsFlags) call(ctx context.Context, method, path string, in, out any) error {
	body, err := f.stream(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// stream is call for answers that are read as they come.
func (f *opsFlags) stream(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	if _, _, err := net.SplitHostPort(f.http); err != nil {
		return nil, usageError{fmt.Errorf("http: %q is not HOST:PORT", f.http)}
	}
	var rqBody io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		rqBody = bytes.NewReader(text)
	}
	rq, err := http.NewRequestWithContext(ctx, method, "http://"+f.http+path, rqBody)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: f.timeout}
	rs, err := client.Do(rq)
	if err != nil {
		return nil, fmt.Errorf("reach a broker at http://%s: %w", f.http, err)
	}
	if rs.StatusCode/100 == 2 {
		return rs.Body, nil
	}
	defer rs.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(rs.Body, 4096))
	r := &refusal{rs.StatusCode, strings.TrimSpace(string(text))}
	if r.code == http.StatusBadRequest {
		return nil, usageError{r}
	}
	return nil, r
}

// refusal is an answer of the operators' API that is none of what was asked for.
type refusal struct {
	code int // HTTP's
	text string
}

func (r *refusal) Error() string { return r.text }
