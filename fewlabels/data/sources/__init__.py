"""Where rows come from: names, arrays, folders, sheets, archives. All become one table."""
