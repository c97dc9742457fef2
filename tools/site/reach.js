// What is wider than the page can be scrolled with the keyboard too: such a block, and only such a
// one, can be reached with Tab.
"use strict";
(() => {
  const blocks = document.querySelectorAll("main pre, main div.sourceCode, main table, main math");
  const look = () => {
    for (const block of blocks) {
      const style = getComputedStyle(block);
      const scrolls = (block.scrollWidth > block.clientWidth && style.overflowX !== "visible")
        || (block.scrollHeight > block.clientHeight && style.overflowY !== "visible");
      if (scrolls) block.tabIndex = 0;
      else block.removeAttribute("tabindex");
    }
  };
  look();
  addEventListener("resize", look);
  addEventListener("load", look);      // once the pictures have their sizes
})();
