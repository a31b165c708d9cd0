/** The page: seven views over the server's own routes. */

import { chatView } from "./chat.ts";
import { startFeed } from "./feed.ts";
import { imagesView } from "./images.ts";
import { startKey } from "./key.ts";
import { requestsView } from "./requests.ts";
import { routesView } from "./routes.ts";
import { modelsView } from "./models.ts";
import { pluginsView } from "./plugins.ts";
import { speechView } from "./speech.ts";
import { startTabs } from "./tabs.ts";
import { startTheme } from "./theme.ts";

// A file that is dropped beside its place must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
startTheme();
startKey();
startTabs([chatView(), imagesView(), speechView(), modelsView(), requestsView(), routesView(), pluginsView()]);
void startFeed();
