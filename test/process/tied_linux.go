package process

import "syscall"

// tied has the kernel kill the broker when the test's process ends, however that ends.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
