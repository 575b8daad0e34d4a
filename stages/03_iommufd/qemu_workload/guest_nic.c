// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest_nic.h"

#define BAR0 "/sys/bus/pci/devices/" DEVICE "/resource0"
#define IGB_RDBAL0 0xc000
#define IGB_RDBAH0 0xc004
#define IGB_RDLEN0 0xc008

/* Written to a register that nothing uses; a reset would clear it. */
#define SCRATCH 0x5afe1234

void guest_nic_map(struct igb *igb)
{
	int fd = must(sys(open(BAR0, O_RDWR | O_CLOEXEC)));
	void *at = mmap(NULL, IGB_BAR0_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must_be(at != MAP_FAILED, "%s", errno_name(-errno));
	close(fd);
	igb->bar0 = at;
}

void guest_nic_mark(struct igb *igb)
{
	igb_set_scratch(igb, SCRATCH);
}

/* Where the guest's driver has put its first receive ring: an address of the guest's. */
void guest_nic_report_ring(struct igb *igb)
{
	u64 ring = (u64)igb_read(igb, IGB_RDBAH0) << 32 | igb_read(igb, IGB_RDBAL0);

	igb->count = igb_read(igb, IGB_RDLEN0) / sizeof(union igb_rx_desc);
	must_be(ring && igb->count, "the guest has not started the device");
	fact("ring.iova", "0x%llx", ring);
	fact("ring.count", "%u", igb->count);
}
