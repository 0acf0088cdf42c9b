// Package crash kills one broker over and over under the load of package load and lets package history judge. It speaks
// Kafka's protocol and the operators' API only.
package crash
