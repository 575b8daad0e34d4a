// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which areas QEMU has mapped for the device. iommufd tells nobody what is in
 * an IOAS, so that QEMU's own trace has to.
 */
#include <stdio.h>
#include <string.h>

#include "handover.h"
#include "qemu_process.h"

#define MAP_EVENT "iommufd_backend_map_file_dma "
#define UNMAP_EVENT "iommufd_backend_unmap_dma "

/* The number behind " @key=" in the line; ends this side where there is none. */
static u64 number_of(const char *line, const char *key)
{
	char word[32];
	long long value;
	const char *at;

	snprintf(word, sizeof(word), " %s=", key);
	at = strstr(line, word);
	must_be(at && sscanf(at + strlen(word), "%lli", &value) == 1, "QEMU's trace: no %s in %s",
		key, line);
	return value;
}

static void map(struct handover *handover, const char *line)
{
	const char *result = strrchr(line, '(');
	struct area *area = &handover->area[handover->nr_areas];

	/* What iommufd refused, such as a BAR of a device, is not mapped. */
	if (!result || strncmp(result, "(0)", 3))
		return;
	must_be(handover->nr_areas < HANDOVER_AREAS, "%u areas", handover->nr_areas);
	*area = (struct area){
		.iova = number_of(line, "iova"),
		.size = number_of(line, "size"),
		.start = number_of(line, "start"),
		.number = number_of(line, "fd"),
		.read_only = number_of(line, "readonly"),
	};
	handover->nr_areas++;
}

static void unmap(struct handover *handover, const char *line)
{
	u64 iova = number_of(line, "iova"), end = iova + number_of(line, "size");
	u32 kept = 0;

	for (u32 i = 0; i < handover->nr_areas; i++) {
		const struct area *area = &handover->area[i];
		bool inside = area->iova >= iova && area->iova + area->size <= end;

		must_be(inside || area->iova >= end || area->iova + area->size <= iova,
			"QEMU unmapped a part of an area: %s", line);
		if (!inside)
			handover->area[kept++] = *area;
	}
	handover->nr_areas = kept;
}

/* What is mapped now, in the order in which it was. */
void areas_read(struct handover *handover)
{
	FILE *trace = fopen(QEMU_TRACE, "re");
	char line[512];

	must_be(trace, QEMU_TRACE ": %s", errno_name(-errno));
	handover->nr_areas = 0;
	while (fgets(line, sizeof(line), trace)) {
		if (strstr(line, MAP_EVENT))
			map(handover, line);
		else if (strstr(line, UNMAP_EVENT))
			unmap(handover, line);
	}
	fclose(trace);
	must_be(handover->nr_areas, "QEMU's trace tells of nothing mapped");
}

/* Bytes that the device may use; of those to which it may not write with @read_only. */
u64 areas_size(const struct handover *handover, bool read_only)
{
	u64 size = 0;

	for (u32 i = 0; i < handover->nr_areas; i++)
		if (!read_only || handover->area[i].read_only)
			size += handover->area[i].size;
	return size;
}
