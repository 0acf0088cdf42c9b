package process

import "syscall"

// Tied has the kernel kill a child when the test's process ends, however that ends.
func Tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
