/** Pictures that go with a message, chosen, pasted or dropped. */

import { button, byId, h } from "./dom.ts";

export interface Attached {
  name: string;
  /** A data URL. */
  url: string;
}

/** The list of pictures beside the message. */
export class Attachments {
  private files: Attached[] = [];
  private readonly list = byId("chat-files", HTMLUListElement);

  /** Listens to the button, to what is pasted into the message and to what is dropped on the view. */
  constructor(view: HTMLElement, input: HTMLElement) {
    const choose = byId("chat-attach", HTMLInputElement);
    choose.addEventListener("change", () => {
      void this.add(choose.files);
      choose.value = "";
    });
    input.addEventListener("paste", (event) => {
      const files = event.clipboardData?.files;
      if (files && files.length > 0) {
        event.preventDefault();
        void this.add(files);
      }
    });
    onDrop(view, (files) => void this.add(files));
  }

  /** Takes them out, to be sent. */
  take(): Attached[] {
    const files = this.files;
    this.put([]);
    return files;
  }

  /** Puts them back. */
  put(files: Attached[]): void {
    this.files = files;
    this.list.hidden = files.length === 0;
    this.list.replaceChildren(
      ...files.map((file) => {
        const remove = button("×", "quiet", () => this.put(this.files.filter((other) => other !== file)));
        remove.setAttribute("aria-label", `Remove ${file.name}`);
        return h("li", {}, h("img", { src: file.url, alt: file.name }), remove);
      }),
    );
  }

  private async add(files: FileList | null): Promise<void> {
    const added = await Promise.all([...(files ?? [])].map(read));
    this.put([...this.files, ...added]);
  }
}

function read(file: File): Promise<Attached> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve({ name: file.name, url: String(reader.result) }));
    reader.addEventListener("error", () => reject(reader.error ?? new Error(`${file.name} cannot be read`)));
    reader.readAsDataURL(file);
  });
}

/** Takes files that are dropped on an element. */
export function onDrop(target: HTMLElement, take: (files: FileList) => void): void {
  const over = (event: DragEvent, is: boolean) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    target.classList.toggle("over", is);
  };
  target.addEventListener("dragover", (event) => over(event, true));
  target.addEventListener("dragleave", (event) => over(event, false));
  target.addEventListener("drop", (event) => {
    over(event, false);
    const files = event.dataTransfer?.files;
    if (files && files.length > 0) take(files);
  });
}
