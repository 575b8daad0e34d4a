/* SPDX-License-Identifier: GPL-2.0-only */
/* A PCI device through the vfio cdev. */
#ifndef VFIO_LIB_H
#define VFIO_LIB_H

#include "workload.h"

/* A UUID. */
#define VFIO_TOKEN_SIZE 16

int pci_driver_bind(const char *bdf, const char *driver);
int pci_attribute_write(const char *bdf, const char *name, const char *value);
int pci_rescan(void);
int pci_driver_unbind_and_wait(const char *bdf, const char *driver);
int pci_driver_unbind(const char *bdf, const char *driver);
int pci_config_write(const char *bdf, u32 offset, const void *value, size_t size);
int vfio_cdev_open(const char *bdf);
int vfio_bind(int device, int iommufd);
int vfio_bind_with_token(int device, int iommufd, const u8 *token);
int vfio_set_vf_token(int device, const u8 *token);
int vfio_attach(int device, u32 pt_id);
int vfio_detach(int device);
int vfio_reset(int device);
int vfio_hot_reset(int device);
int vfio_set_irq_eventfd(int device, u32 index, int eventfd);
int vfio_set_irq_eventfds(int device, u32 index, const int *eventfds, u32 count);
u32 vfio_irq_info(int device, u32 index);
u64 vfio_region_info(int device, u32 index);
int vfio_set_ioeventfd(int device, u64 offset, int eventfd);
int vfio_clear_irqs(int device, u32 index);
int vfio_low_power_enter(int device);
int vfio_bar_map(int device, u32 index, size_t size, void **mapping);
int vfio_register_read(int device, u32 offset, u32 *value);
int vfio_use(const char *bdf);
int vfio_config_read(int device, u32 offset, void *value, size_t size);
int vfio_config_write(int device, u32 offset, const void *value, size_t size);

#endif
