// Package peerpb holds the messages that brokers exchange on the internal listener, generated from
// the .proto files beside it (protoc 3.21, protoc-gen-go 1.36.12, protoc-gen-go-grpc 1.6.2).
package peerpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative witness.proto owner.proto reads.proto controller.proto peer.proto balance.proto
