// The parts of a light table. For the type checker only.

export type Side = "a" | "b";
export type Mode = "grid" | "slider" | "blink" | "difference";

/** How a table shows its images: plain values that outlive the table. */
export interface View {
    mode: Mode;
    /** Index of the image of a batch. */
    image: number;
    /** Device pixels per image pixel; 0 fits the image into its window. */
    zoom: number;
    /** Centre of the view, from 0 to 1 of the image. */
    x: number;
    y: number;
    /** Place of the divider, from 0 to 1 of the stage. */
    split: number;
    /** What the slider moves: a vertical or horizontal divider, or the opacity. */
    axis: "x" | "y" | "blend";
    /** Opacity of B, from 0 to 1. */
    blend: number;
    /** The slider follows the mouse without a click. */
    follow: boolean;
    /** Blink shows A and B in turn. */
    auto: boolean;
    /** Changes per second of that. */
    rate: number;
    /** Factor on the difference map; 0 chooses one that fits. */
    gain: number;
    /** What the difference map shows. */
    metric: "rgb" | "lab";
    loupe: boolean;
    histogram: boolean;
    /** Blink shows B. */
    other: boolean;
    /** Where the pointer or the crosshair is, from 0 to 1 of the image. */
    at: Point | null;
    /** The crosshair is shown, and stays where it is. */
    cross: boolean;
    help: boolean;
    /** Names of the figures that are compared. */
    a: string;
    b: string;
}

export type Point = [x: number, y: number];

/** One VAE's figure, with an image or, of a batch, several. */
export interface Figure {
    figure: HTMLElement;
    name: string;
    /** The window around each image. */
    boxes: HTMLElement[];
    /** It is no VAE's, but what the others are compared with. */
    isReference: boolean;
    /** It shows differences, not an image. */
    isMap: boolean;
    save: HTMLAnchorElement;
    open: HTMLAnchorElement;
    /** The colour of one pixel. */
    pixel: HTMLElement;
}

export interface DifferenceMap {
    key: string;
    /** RGBA bytes |A - B|; null if the images differ in size. */
    values: Uint8ClampedArray | null;
    largest: number;
    width: number;
    height: number;
    gain: number;
}

/** A map of ΔE, which is computed row by row. */
export interface HeatMap {
    key: string;
    /** RGBA bytes of both images; null once the map is complete. */
    a: Uint8ClampedArray | null;
    b: Uint8ClampedArray | null;
    image: ImageData;
    /** How many are computed. */
    rows: number;
    /** Of ΔE over the computed rows. */
    sum: number;
    largest: number;
}

export type Answer = "left" | "right" | "none";

/** Two images of a blind test. */
export interface Trial {
    /** Of the VAEs, left and right. */
    names: [string, string];
    /** Index of the image of the batch. */
    image: number;
    answer: Answer | null;
}

export interface Tools {
    toolbar: HTMLElement;
    zoomLabel: HTMLElement;
    imageMenu: HTMLSelectElement;
    message: HTMLElement;
    help: HTMLElement;
}

export interface Stage {
    stage: HTMLElement;
    pair: HTMLElement;
    sides: Record<Side, {label: HTMLElement; name: HTMLElement; select: HTMLSelectElement}>;
    sliderTools: HTMLElement;
    blendTools: HTMLElement;
    blend: HTMLInputElement;
    blendLabel: HTMLElement;
    blinkTools: HTMLElement;
    hold: HTMLButtonElement;
    rate: HTMLInputElement;
    rateLabel: HTMLElement;
    differenceTools: HTMLElement;
    gainTools: HTMLElement;
    legend: HTMLElement;
    gain: HTMLInputElement;
    gainLabel: HTMLElement;
    largest: HTMLElement;
    layers: {a: HTMLImageElement; b: HTMLImageElement; map: HTMLCanvasElement};
    half: HTMLElement;
    divider: HTMLElement;
    /** The colours of one pixel. */
    readout: HTMLElement;
    histogram: HTMLElement;
}

export interface Table extends Tools, Stage {
    grid: HTMLElement;
    /** The two figures of a blind test. */
    isBlind: boolean;
    figures: Figure[];
    /** Images per figure. */
    batch: number;
    names: string[];
    view: View;
    /** The next frame draws it. */
    isDrawing: boolean;
    /** The next frame draws what follows the pointer. */
    isPointing: boolean;
    difference: DifferenceMap | null;
    heat: HeatMap | null;
}

/** Where an image lies in its window, in device pixels unless said otherwise. */
export interface Geometry {
    /** Device pixels per image pixel. */
    s: number;
    /** The s that fits the image into its window. */
    fit: number;
    /** Size of the window. */
    wide: number;
    high: number;
    /** Size of the image in image pixels. */
    columns: number;
    rows: number;
    /** Place of the window on the page, in CSS pixels. */
    x: number;
    y: number;
    /** Edges of the image in the window. */
    left: number;
    top: number;
}
