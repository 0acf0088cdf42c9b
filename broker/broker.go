// Package broker is the server: connections, dispatch, one NN_name.go per Kafka API,
// groups and retention. It decides policy; the log, the map and the replicated state are
// mechanisms that it is handed.
//
// It promises Kafka's behaviour on the wire, bounded memory whatever a client sends, and
// that an acknowledgement is sent only for what the log committed.
package broker

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Config configures a broker. The zero value of an optional field means its default.
type Config struct {
	ID          ident.Broker
	Incarnation int64 // greater at every start
	Rack        string
	Listener    net.Listener // Kafka protocol; the broker closes it
	Host        string       // advertised
	Port        int32        // advertised

	Store *queuemapper.Store
	// Logs are open for recovery only (Open has returned, Run is going): the broker reopens
	// them through the map and begins them.
	Logs []*commitlog.Log

	// Static are the broker's own configs by Kafka name, from the config file, flags and environment.
	Static map[string]string

	MemoryBytes    int64 // budget for requests and responses in flight; default 512 MiB
	MaxConnections int   // default 20,000
	DrainTimeout   time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Broker serves Kafka clients.
type Broker struct{}

// New checks cfg (all problems in one error) and prepares a broker.
func New(cfg Config) (*Broker, error) { panic("broker: New") }

// Run takes the broker's logs into service (O15), registers it, serves until ctx ends, then drains: stops
// taking connections and requests, lets what is in flight commit, and returns.
func (b *Broker) Run(ctx context.Context) error { panic("broker: Run") }

// Ready is closed when the broker serves.
func (b *Broker) Ready() <-chan struct{} { panic("broker: Ready") }
