// SPDX-License-Identifier: GPL-2.0-only
/* What has to be the same on both sides of the kexec, read from where it is. */
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "igb.h"
#include "pci_config.h"
#include "vfio.h"

#define PORT "0000:00:02.0"
#define HEAD_LOOKS 5
#define VFIO_CONFIG 256

#define HEADER_TEXT (2 * PCI_STD_HEADER_SIZEOF + 1)
#define BRIDGES_MAX 8

/* Bytes @from to @to of the configuration, as hexadecimal digits. */
static void config_text(const char *bdf, size_t from, size_t to, char *text)
{
	u8 config[PCI_CONFIG_MAX];

	pci_config_read(bdf, from, to, config);
	for (size_t i = 0; i < to - from; i++)
		sprintf(text + 2 * i, "%02x", config[i]);
}

static void report_config(const char *bdf, const char *key, size_t from, size_t to)
{
	char text[2 * PCI_CONFIG_MAX + 1];

	config_text(bdf, from, to, text);
	fact(key, "%s", text);
}

/* Each bridge from the root port on, then the device, as sysfs nests them. */
static void report_path(const char *bdf)
{
	char link[256], text[256], configs[BRIDGES_MAX * HEADER_TEXT] = "", *step, *next;
	ssize_t len;

	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s", bdf);
	len = must(sys(readlink(link, text, sizeof(text) - 1)));
	text[len] = '\0';
	step = strstr(text, "/pci0000:00/");
	must_be(step, "%s is a link to %s", bdf, text);
	step += strlen("/pci0000:00/");
	fact("device.path", "%s", step);
	for (; (next = strchr(step, '/')); step = next + 1) {
		size_t used = strlen(configs);

		*next = '\0';
		must_be(used + HEADER_TEXT < sizeof(configs), "too many bridges above %s", bdf);
		if (used)
			configs[used++] = '/';
		config_text(step, 0, PCI_STD_HEADER_SIZEOF, configs + used);
	}
	fact("bridges.config", "%s", configs);
}

/*
 * What a driver sets up and hardware leaves alone (Intel 82576 datasheet, 8.1.3; those that an
 * interrupt changes by itself, EIMS and the causes, are not among them).
 */
static const struct settings {
	const char *name;
	u32 reg, count;
} settings[] = {
	{ "ctrl", 0x0000, 1 },	    { "ctrl_ext", 0x0018, 1 },	{ "flow_control", 0x0028, 3 },
	{ "vet", 0x0038, 1 },	    { "ims", 0x00d0, 1 },	{ "iam", 0x00e0, 1 },
	{ "fcttv", 0x0170, 1 },	    { "tctl", 0x0400, 1 },	{ "tipg", 0x0410, 1 },
	{ "gpie", 0x1514, 1 },	    { "eiac", 0x152c, 1 },	{ "eiam", 0x1530, 1 },
	{ "eitr", 0x1680, 25 },	    { "ivar", 0x1700, 8 },	{ "ivar_misc", 0x1740, 1 },
	{ "fcrt", 0x2160, 3 },	    { "dtxctl", 0x3590, 1 },	{ "rxcsum", 0x5000, 3 },
	{ "multicast", 0x5200, 128 }, { "addresses", 0x5400, 30 }, { "vlans", 0x5600, 128 },
	{ "mrqc", 0x5818, 2 },	    { "rss", 0x5c00, 42 },	{ "tx_ring", 0xe000, 3 },
	{ "txdctl", 0xe028, 1 },
};

/* A register as it is, of several a digest. */
static void report_settings(const struct igb *igb)
{
	char text[ARRAY_SIZE(settings) * 32] = "";
	size_t len = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		u32 value = igb_read(igb, settings[i].reg);

		for (u32 n = 1; n < settings[i].count; n++)
			value = (value << 5 | value >> 27) * 0x9e3779b1u +
				igb_read(igb, settings[i].reg + 4 * n);
		len += snprintf(text + len, sizeof(text) - len, "%s%s=%08x", i ? " " : "",
				settings[i].name, value);
	}
	fact("device.settings", "%s", text);
}

/*
 * The head, and when it was read: on a busy host the line may come much later,
 * and this CPU may be kept waiting between the two as well.
 */
static void report_head(const struct igb *igb)
{
	u64 before, after, best = ~0ULL, when = 0;
	u32 head = 0;

	for (int i = 0; i < HEAD_LOOKS; i++) {
		u32 seen;

		before = read_counter();
		seen = igb_rx_head(igb);
		after = read_counter();
		if (after - before < best) {
			best = after - before;
			when = before;
			head = seen;
		}
	}
	fact("device.head", "%u", head);
	fact_counter("head", when);
}

/* Which drivers the services of the first port have, as `aer pcie_pme`. */
static void report_services(void)
{
	char text[256] = "", driver[256];
	size_t used = 0;
	glob_t found;

	if (glob("/sys/bus/pci_express/devices/" PORT ":*/driver", 0, NULL, &found)) {
		fact("port.services", "none");
		return;
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		ssize_t len = must(sys(readlink(found.gl_pathv[i], driver, sizeof(driver) - 1)));

		driver[len] = '\0';
		used += snprintf(text + used, sizeof(text) - used, "%s%s", i ? " " : "",
				 strrchr(driver, '/') + 1);
		must_be(used < sizeof(text), "too many services");
	}
	globfree(&found);
	fact("port.services", "%s", text);
}

/* Facts device.*, port.config of the first port, which is above the device, bridges.config. */
void igb_report(const struct igb *igb, const char *bdf)
{
	struct igb_ring_state state;

	igb_ring_state(igb, &state);
	fact("device.bdf", "%s", bdf);
	fact("device.registers",
	     "rdbal=%08x rdbah=%08x rdlen=%08x rctl=%08x rxdctl=%08x srrctl=%08x scratch=%08x",
	     state.rdbal, state.rdbah, state.rdlen, state.rctl, state.rxdctl, state.srrctl,
	     state.scratch);
	report_settings(igb);
	report_head(igb);
	fact("device.tail", "%u", igb_rx_tail(igb));
	report_config(bdf, "device.config", 0, PCI_STD_HEADER_SIZEOF);
	report_config(bdf, "device.capabilities", PCI_STD_HEADER_SIZEOF, PCI_CONFIG_MAX);
	report_config(PORT, "port.config", 0, PCI_STD_HEADER_SIZEOF);
	report_services();
	report_path(bdf);
}

/* What vfio says of interrupts and regions: whoever uses the device goes by it. */
void report_vfio_info(int device)
{
	char text[512] = "";
	size_t used = 0;

	for (u32 i = 0; i < VFIO_PCI_NUM_IRQS; i++)
		used += snprintf(text + used, sizeof(text) - used, "irq%u=%x ", i,
				 vfio_irq_info(device, i));
	for (u32 i = 0; i < VFIO_PCI_NUM_REGIONS; i++)
		used += snprintf(text + used, sizeof(text) - used, "region%u=%llx ", i,
				 vfio_region_info(device, i));
	fact("device.vfio_info", "%s", text);
}

/* The configuration as vfio shows it to the device's user, who does not see all that there is. */
void report_vfio_config(int device)
{
	char text[2 * VFIO_CONFIG + 1];
	u8 config[VFIO_CONFIG];

	for (u32 at = 0; at < VFIO_CONFIG; at += sizeof(u32))
		must(vfio_config_read(device, at, config + at, sizeof(u32)));
	for (u32 at = 0; at < VFIO_CONFIG; at++)
		sprintf(text + 2 * at, "%02x", config[at]);
	fact("device.vfio_config", "%s", text);
	report_vfio_info(device);
}
