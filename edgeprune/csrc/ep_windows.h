/* Windows along one spatial direction: what depthwise convolutions and pools share. */
#ifndef EP_WINDOWS_H
#define EP_WINDOWS_H

#include "ep_base.h"

/* `before` counts the positions of padding that the first window reaches over. */
struct EP(windows) {
    int32_t input, output, size, stride, dilation, before;
};

#endif
