/* Kernels of the generated library: int8 tensors in NHWC, exact to the TensorFlow Lite reference kernels.
 *
 * One header a family; each includes what it needs, and none includes this one.
 */
#ifndef EP_KERNELS_H
#define EP_KERNELS_H

#include "ep_add.h"
#include "ep_layout.h"
#include "ep_lstm.h"
#include "ep_matmul.h"
#include "ep_resize.h"
#include "ep_softmax.h"
#include "ep_table.h"
#include "ep_conv.h"
#include "ep_dense.h"
#include "ep_depthwise.h"
#include "ep_transpose_conv.h"
#include "ep_elementwise.h"
#include "ep_pool.h"
#include "ep_reduce.h"

#endif
