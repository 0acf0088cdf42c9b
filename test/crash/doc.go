// Package crash is the load of the crash tests: producers, consumers and observers of marks on real clients, which
// report everything that they are told to a history. The tests beside it kill the broker under that load and let the
// history judge. It speaks Kafka's protocol and the operators' API only.
package crash
