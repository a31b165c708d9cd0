/** Masks as COCO writes them: runs down the columns of a picture, five bits in a character. */

export interface Mask {
  size: [height: number, width: number];
  counts: string;
}

/** The lengths of the runs, outside and inside in turn; from the fourth on the text has differences. */
export function runs(counts: string): number[] {
  const found: number[] = [];
  let value = 0;
  let factor = 1;
  for (const character of counts) {
    const bits = character.charCodeAt(0) - 48;
    value += (bits & 31) * factor;
    factor *= 32;
    if (bits & 32) continue;
    if (bits & 16) value -= factor;
    found.push(value + (found.length > 2 ? (found[found.length - 2] ?? 0) : 0));
    value = 0;
    factor = 1;
  }
  return found;
}

/** A canvas of the picture's size on which the mask has this colour, as red, green and blue. */
export function drawn({ size: [height, width], counts }: Mask, colour: [number, number, number]): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const image = context.createImageData(width, height);
  let at = 0;
  runs(counts).forEach((run, index) => {
    const end = Math.min(at + run, width * height);
    for (; index % 2 === 1 && at < end; at++) {
      image.data.set([...colour, 120], ((at % height) * width + Math.floor(at / height)) * 4);
    }
    at = end;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}
