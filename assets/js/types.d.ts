// The types of what Python sends and of what a view is. PROTOCOL.md tells the story; the schema beside it is tested from both sides.

export interface View {
  /** Shows frame i of the film, `fraction` of the way to the next one. */
  show?(frames: any[], i: number, fraction: number): void;
  /** New data of a panel that is no film. */
  update?(data: any): void;
  /** Frames were added. */
  grown?(frames: any[]): void;
  /** All frames go. */
  clear?(): void;
  /** Draws between two frames. */
  smooth?: boolean;
  /** Panels inside this one, by id. */
  members?: Record<string, View>;
  /** Ends listeners and observers. */
  destroy(): void;
}

export type Mount = (place: HTMLElement, spec: any, seek?: (position: number) => void) => View;

export interface Figure {
  name: string;
  unit: string;
  label: "measured" | "computed" | "simulated";
  against: "theory" | "paper" | "baseline" | "limit" | null;
  predicted: number | null;
  measured: number | null;
  gap: number | null;
  source: string;
  headline: boolean;
}

export interface PictureMessage {
  id: string;
  scene: string;
  updates: string;
  log: string[];
  figures: Figure[];
  takeaways: string[];
  parts: Record<string, string>;
  machine: string;
  open?: { scene: string; panels: any[]; preview: boolean };
}

export interface TransportMessage {
  run?: string | null;
  state?: "idle" | "queued" | "running" | "paused";
  status?: string;
  bad?: boolean;
}

declare global {
  interface Window {
    Viz: any;
    vizReady: Promise<any>;
    vizLoaded: (viz: any) => void;
    plotlySource: string;
    Plotly: any;
  }
}
