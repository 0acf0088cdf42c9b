// Package bench measures brokers from outside: load generators that speak the Kafka wire,
// and scenarios that run Apache Kafka and Skein one after the other on the same disk with
// the same load and print ratios.
//
// It imports nothing of the server, so that what it measures is what a client gets. Its
// generators are no bottleneck: batches are encoded once and sent again and again by
// writev; the ceiling against a sink that answers and forgets is part of each report.
// So is what a server reaches that makes the same bytes durable and does nothing else
// (Bare): it says what of a broker's distance is the machine's. It writes by internal/vfs,
// the one package of ours that is imported: it knows files, and no broker.
// Latency at a fixed rate is measured from the moment at which a request was due, not from
// when it could be sent (no coordinated omission).
package bench
