// Package cluster breaks a cluster of real processes under the load of package load, and lets package history judge
// what its clients were told. Skein is one cluster; Apache Kafka is another, on which the harness itself is tried.
package cluster
